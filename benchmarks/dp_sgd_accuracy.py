"""What ``dp-sgd`` costs in accuracy and in time, in one run.

Scikit-learn's digits (1,797 rows of 64 numbers; 1,437 to train), a perceptron with 128 hidden units, δ=7e-4, batches of
256 expected examples, C=0.5, 40 rounds of one epoch, Adam with a rate of 0.01: the settings that docs/privacy/dp-sgd.md
recommends. For each library and ε the table shows the accuracy on the test data over several seeds, and the ε that the
ledger tells in the end. Then it shows the time of an epoch, and of its charge, with privacy and without. Opacus' own
``PrivacyEngine`` loop (``make_private_with_epsilon``; the same model, data, optimizer and settings) is the peer of the
PyTorch session::

    python benchmarks/dp_sgd_accuracy.py [--seeds 3] [--repeats 30] [--libraries pytorch keras opacus] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
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


class Ours:
    """A session and its mechanism, driven as a worker does."""

    def __init__(self, library: str, data: Data, epsilon: float | None, seed: int) -> None:
        self.told: list[float] = []
        self.session = make_session(library, data, seed)
        self.private = None if epsilon is None else mechanism(epsilon, self.told)
        self.rounds = 0
        self.charges = 0.0
        if self.private is not None:
            self.private.prepare(self.session)

    def epoch(self) -> None:
        """Do a round of one epoch."""
        self.rounds += 1
        start = time.perf_counter()
        if self.private is not None:
            self.private.before_fit({})
        self.charges += time.perf_counter() - start
        reference = self.session.get_parameters()
        result = self.session.fit(CONFIG, server_round=self.rounds)
        if self.private is not None:
            trained = Update(self.session.get_parameters(), reference, result.examples, dict(result.metrics))
            self.private.outgoing(trained, {})

    def accuracy(self) -> float:
        """Return that on the test data."""
        return self.session.evaluate(CONFIG).metrics["accuracy"]

    def epsilon(self) -> float | None:
        """Return what was spent."""
        return self.told[-1] if self.told else None


class Peer:
    """Opacus' own loop, which accounts once, in the end."""

    def __init__(self, _library: str, data: Data, epsilon: float | None, seed: int) -> None:
        import torch
        from opacus import PrivacyEngine
        from torch.utils.data import DataLoader, TensorDataset

        torch.set_num_threads(1)
        torch.manual_seed(seed)
        train, self.test = ([torch.from_numpy(one) for one in (part.x, part.y)] for part in data)
        self.module: Any = sessions.architecture("pytorch", "mlp", MLP, seed)
        self.loader: Any = DataLoader(TensorDataset(*train), batch_size=CONFIG.batch_size, shuffle=True)
        self.optimizer: Any = torch.optim.Adam(self.module.parameters(), lr=RATE)
        self.engine = None if epsilon is None else PrivacyEngine(accountant="prv")
        if self.engine is not None:
            self.module, self.optimizer, self.loader = self.engine.make_private_with_epsilon(
                module=self.module,
                optimizer=self.optimizer,
                data_loader=self.loader,
                target_epsilon=epsilon,
                target_delta=DELTA,
                epochs=ROUNDS,
                max_grad_norm=NORM,
            )

    def epoch(self) -> None:
        """Do an epoch."""
        import torch

        self.module.train()
        for x, y in self.loader:
            self.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.module(x), y).backward()
            self.optimizer.step()

    def accuracy(self) -> float:
        """Return that on the test data."""
        import torch

        self.module.eval()
        with torch.no_grad():
            return float((self.module(self.test[0]).argmax(1) == self.test[1]).float().mean())

    def epsilon(self) -> float | None:
        """Return what was spent."""
        return None if self.engine is None else float(self.engine.get_epsilon(DELTA))


def trained(library: str, data: Data, epsilon: float | None, seed: int) -> tuple[float, float | None]:
    """Return accuracy and ε after all rounds."""
    made = (Peer if library == "opacus" else Ours)(library, data, epsilon, seed)
    for _ in range(ROUNDS):
        made.epoch()
    return made.accuracy(), made.epsilon()


def accuracies(data: Data, libraries: list[str], seeds: int) -> Iterator[dict[str, Any]]:
    for library in libraries:
        for place, target in enumerate(TARGETS):
            runs = [trained(library, data, target, seed) for seed in range(seeds)]
            found = [run[0] for run in runs]
            yield {
                "library": library,
                "target": target,
                "accuracy": statistics.mean(found),
                "least": min(found),
                "goal": GOALS[library][place] if library in GOALS else None,
                "epsilon": runs[-1][1],
            }


def times(data: Data, libraries: list[str], repeats: int) -> dict[str, float]:
    """Return median milliseconds of an epoch; epochs alternate, so that other load meets all alike."""
    runs: dict[str, Any] = {}
    for library in libraries:
        for name, target in (("plain", None), ("private", 3.0)):
            runs[f"{library} {name}"] = (Peer if library == "opacus" else Ours)(library, data, target, 0)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    charges: dict[str, list[float]] = {name: [] for name, run in runs.items() if getattr(run, "private", None)}
    for repeat in range(min(repeats, ROUNDS - 1) + 1):  # of the first round no time is taken
        for name, run in runs.items():
            before, start = getattr(run, "charges", 0.0), time.perf_counter()
            run.epoch()
            took, charge = time.perf_counter() - start, getattr(run, "charges", 0.0) - before
            if repeat:
                seconds[name].append(took - charge)
                charges.get(name, []).append(charge)
    found = {name: 1000 * statistics.median(several) for name, several in seconds.items()}
    return found | {f"{name}: charge": 1000 * statistics.median(several) for name, several in charges.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--libraries", nargs="+", default=["pytorch", "opacus", "keras"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Opacus warns of its own random numbers
    data, rows = digits(), []
    for row in accuracies(data, arguments.libraries, arguments.seeds):
        rows.append(row)
        if not arguments.json:
            show(row)
    milliseconds = times(data, arguments.libraries, arguments.repeats)
    if arguments.json:
        print(json.dumps({"accuracy": rows, "milliseconds": milliseconds}, indent=1))
        return
    for name, value in milliseconds.items():
        print(f"{name:24} {value:6.1f} ms an epoch")


def show(row: dict[str, Any]) -> None:
    target = "none" if row["target"] is None else f"{row['target']:g}"
    spent = "" if row["epsilon"] is None else f"  ε told {row['epsilon']:.3f}"
    goal = "" if row["goal"] is None else f"  goal {row['goal']:.2f}"
    print(
        f"{row['library']:8} ε {target:5} accuracy {row['accuracy']:.3f} (least {row['least']:.3f}){goal}{spent}",
        flush=True,
    )


if __name__ == "__main__":
    main()
