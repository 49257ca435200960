"""What ``dp-sgd`` costs in accuracy and in time, in one run.

Scikit-learn's digits (1,797 rows of 64 numbers; 1,437 to train), a perceptron with 128 hidden units, δ=7e-4, batches of
256 expected examples, C=0.5, 40 rounds of one epoch, Adam with a rate of 0.01: the settings that docs/privacy/dp-sgd.md
recommends. For each library and ε the table shows the accuracy on the test data over several seeds, the ε that the
ledger tells in the end, and seconds per epoch with all accounting, against the same training without privacy. Opacus'
own ``PrivacyEngine`` loop (``make_private_with_epsilon``, the same model, data, optimizer and settings) is the peer of
the PyTorch session::

    python benchmarks/dp_sgd_accuracy.py [--seeds 3] [--libraries pytorch keras opacus] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sessions
from sessions import Data, plugin
from sklearn.datasets import load_digits

from locex.api import Dataset, PrivacyContext, PrivacyMechanism, TrainingSession, Update
from locex.schemas.job import TrainConfig
from locex.testing.contract.privacy import memory_ledgers

ROUNDS, DELTA, NORM, RATE = 40, 7e-4, 0.5, 0.01
CONFIG = TrainConfig(batch_size=256, epochs=1)
TARGETS = (None, 8.0, 3.0, 1.0)
GOALS = {"pytorch": (0.97, 0.96, 0.94, 0.82), "keras": (0.97, 0.95, 0.93, 0.77)}
"""What careful settings reach, for each of `TARGETS`."""
MLP = {"input_size": [64], "num_classes": 10}


def digits() -> Data:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order].astype(np.int64)
    return Dataset(x[:1437], y[:1437]), Dataset(x[1437:], y[1437:])


def writer(library: str) -> Callable[..., None]:
    if library == "keras":
        from locex_keras_builder.artefact import write_architecture as write_keras

        return write_keras
    from locex_torch_builder.artefact import write_architecture as write_torch

    return write_torch


def make_session(library: str, data: Data, seed: int) -> TrainingSession:
    chosen = plugin("optimizer", f"{library}.adam")
    rate = {"lr" if library == "pytorch" else "learning_rate": RATE}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlp.zip"
        writer(library)(path, architecture="mlp", config=MLP, seed=seed)
        return sessions.make_session(
            library,
            path,
            data,
            CONFIG,
            lambda target: chosen.locex_create_optimizer(chosen.locex_config_model()(**rate), target),
            threads=1,
            seed=seed,
        )


def mechanism(epsilon: float, told: list[float]) -> PrivacyMechanism:
    chosen = plugin("privacy", "dp-sgd")
    config = chosen.locex_config_model()(target_epsilon=epsilon, delta=DELTA, max_grad_norm=NORM)
    context = PrivacyContext("digits", memory_ledgers(), lambda _, value: told.append(value), [CONFIG], ROUNDS)
    made: PrivacyMechanism = chosen.locex_create_privacy(config, context)
    return made


def ours(library: str, data: Data, epsilon: float | None, seed: int) -> tuple[float, float | None, float]:
    """Return accuracy, ε and the median seconds of an epoch, as a worker drives session and mechanism."""
    session, told, seconds = make_session(library, data, seed), list[float](), []
    private = None if epsilon is None else mechanism(epsilon, told)
    if private is not None:
        private.prepare(session)
    for server_round in range(1, ROUNDS + 1):
        start = time.perf_counter()
        if private is not None:
            private.before_fit({})
        reference = session.get_parameters()
        result = session.fit(CONFIG, server_round=server_round)
        if private is not None:
            private.outgoing(Update(session.get_parameters(), reference, result.examples, dict(result.metrics)), {})
        seconds.append(time.perf_counter() - start)
    accuracy = session.evaluate(CONFIG).metrics["accuracy"]
    return accuracy, told[-1] if told else None, statistics.median(seconds)


def opacus(_: str, data: Data, epsilon: float | None, seed: int) -> tuple[float, float | None, float]:
    """Return the same of Opacus' own loop."""
    import torch
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    module = sessions.architecture("pytorch", "mlp", MLP, seed)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    train, test = ([torch.from_numpy(one) for one in (part.x, part.y)] for part in data)
    loader: Any = DataLoader(TensorDataset(*train), batch_size=CONFIG.batch_size, shuffle=True)
    optimizer: Any = torch.optim.Adam(module.parameters(), lr=RATE)
    engine = PrivacyEngine(accountant="prv")
    if epsilon is not None:
        module, optimizer, loader = engine.make_private_with_epsilon(
            module=module,
            optimizer=optimizer,
            data_loader=loader,
            target_epsilon=epsilon,
            target_delta=DELTA,
            epochs=ROUNDS,
            max_grad_norm=NORM,
        )
    seconds = []
    for _epoch in range(ROUNDS):
        start = time.perf_counter()
        module.train()
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x), y).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    module.eval()
    with torch.no_grad():
        accuracy = float((module(test[0]).argmax(1) == test[1]).float().mean())
    spent = None if epsilon is None else float(engine.get_epsilon(DELTA))
    return accuracy, spent, statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--libraries", nargs="+", default=["pytorch", "opacus", "keras"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Opacus warns of its own random numbers
    data, rows = digits(), []
    for library in arguments.libraries:
        measure = opacus if library == "opacus" else ours
        for place, epsilon in enumerate(TARGETS):
            runs = [measure(library, data, epsilon, seed) for seed in range(arguments.seeds)]
            accuracies = [run[0] for run in runs]
            row = {
                "library": library,
                "target": epsilon,
                "accuracy": statistics.mean(accuracies),
                "least": min(accuracies),
                "goal": GOALS[library][place] if library in GOALS else None,
                "epsilon": runs[-1][1],
                "milliseconds": 1000 * statistics.median(run[2] for run in runs),
            }
            rows.append(row)
            if not arguments.json:
                show(row)
    if arguments.json:
        print(json.dumps(rows, indent=1))


def show(row: dict[str, Any]) -> None:
    target = "none" if row["target"] is None else f"{row['target']:g}"
    spent = "" if row["epsilon"] is None else f"  ε told {row['epsilon']:.3f}"
    goal = "" if row["goal"] is None else f"  goal {row['goal']:.2f}"
    print(
        f"{row['library']:8} ε {target:5} accuracy {row['accuracy']:.3f} (least {row['least']:.3f}){goal}"
        f"  {row['milliseconds']:6.1f} ms an epoch{spent}",
        flush=True,
    )


if __name__ == "__main__":
    main()
