"""Real services as processes of their own, each test's jobs on them, and a model for 8 x 8 digits."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
import zipfile
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

MARK = "LOCEX_TEST_MARK"
OVER = {"FINISHED", "FAILED", "STOPPED"}
BACKOFF = {"backoff_initial": 0.2, "backoff_max": 1}
PROGRAMS = Path(__file__).parent / "programs"
SOON = 180  # seconds within which anything happens, however busy the machine is
TIMEOUT = 400  # seconds of a whole test


def pytest_collection_modifyitems(items):
    """Give tests of real services more time than others; one that names its own keeps it."""
    for item in items:
        if item.path.name.startswith("test_e2e_") and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def until(condition, what="it", seconds=SOON):
    """Return the first true value of a condition."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what() if callable(what) else what} did not happen within {seconds} s"
        time.sleep(0.02)
    return value


def in_training(record, server_round):
    """Return whether a record shows the training of a round in progress: the one before is evaluated, this not over."""
    history = record["history"]
    begun = len(history) == server_round - 1 and (not history or history[-1].get("evaluation"))
    return bool(record["state"] == "TRAINING" and begun)


def marked(mark, since):
    """Return the processes, whatever their group and parent, that were started under a mark and still live."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            young = process.create_time() > since - 1 and process.status() != psutil.STATUS_ZOMBIE
            if young and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def _take_interrupts():
    """Undo what a shell does to programs that it runs in the background: they would ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Programs:
    """Programs in process groups of their own, under one mark in their environment."""

    def __init__(self, folder):
        self.folder = folder
        self.python = sys.executable
        self.mark, self.since = uuid.uuid4().hex, time.time()
        self.started = []
        self.closing = contextlib.ExitStack()

    def start(self, *argv, log, **environment):
        with (self.folder / log).open("ab") as output:
            process = subprocess.Popen(
                [self.python, *map(str, argv)],
                env={**os.environ, MARK: self.mark, "PYTHONUNBUFFERED": "1", **environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_take_interrupts,  # noqa: PLW1509 -- it starts nothing and takes no lock
            )
        self.started.append(process)
        return process

    def alive(self):
        return marked(self.mark, self.since)

    def end(self):
        self.closing.close()
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        for process in self.alive():
            with contextlib.suppress(psutil.Error):
                process.kill()
        for process in self.started:
            process.wait(15)


class Service:
    """A service that can be killed and started again on the same port and state."""

    until = staticmethod(until)

    def __init__(self, programs, name, *command, **environment):
        self.name, self.port, self.programs = name, free_port(), programs
        self.folder = programs.folder / name
        self.data = self.folder / "data"
        self._command = command
        self._environment = {
            "HOST": "127.0.0.1",
            "LOCEX_STATE_FOLDER": str(self.folder / "state"),
            "DATA_FOLDER": str(self.data),
            "LOCEX_THREADS": "1",
            "LOCEX_PLUGIN_TIMEOUT": "120",
            "LOCEX_STOP_GRACE": "5",
            "LOCEX_PATIENCE": "150",
            "LOCEX_FEDERATION_FIELDS": json.dumps(
                {"flower-grpc": BACKOFF, "flower-superlink": {**BACKOFF, "linger": 1}}
            ),
            **environment,
        }
        self.folder.mkdir()
        client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=SOON)
        self.http = programs.closing.enter_context(client)
        self.posted = set()

    def start(self):
        """Start without waiting."""
        argv = ("-m", "locex.cli", *self._command, "--port", self.port)
        self.process = self.programs.start(*argv, log=f"{self.name}.log", **self._environment)

    def ready(self):
        def answers():
            assert self.process.poll() is None, self.log
            with contextlib.suppress(httpx.TransportError):
                return self.http.get("/readyz").is_success

        until(answers, lambda: f"the start of {self.name}")

    @property
    def log(self):
        return (self.programs.folder / f"{self.name}.log").read_text()

    def kill(self):
        """Kill the service alone."""
        self.process.kill()
        self.process.wait()

    def kill_with_children(self):
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def call(self, method, path, **arguments):
        response = self.http.request(method, path, **arguments)
        assert response.is_success, f"{method} {path} at {self.name}: {response.status_code} {response.text}"
        return response

    def post(self, training_id, job):
        self.posted.add(training_id)
        return self.call("POST", f"/job/config/{training_id}/", json=job).json()

    def record(self, training_id):
        return self.call("GET", f"/job/{training_id}").json()

    def over(self, training_id, seconds=SOON):
        """Wait for the end and return the record."""
        self.reach(training_id, lambda record: record["state"] in OVER, seconds)
        return self.record(training_id)

    def finished(self, training_id, seconds=SOON):
        record = self.over(training_id, seconds)
        assert record["state"] == "FINISHED", json.dumps(record["failure"], indent=1)
        return record

    def reach(self, training_id, condition, seconds=SOON):
        """Wait until the record meets a condition and return it as it was then."""

        def reached():
            record = self.record(training_id)
            return record if condition(record) else None

        return until(reached, lambda: json.dumps(self.record(training_id), indent=1), seconds)

    def training(self, training_id, server_round):
        """Wait until a round's training is in progress."""
        record = self.reach(training_id, lambda record: record["state"] in OVER or in_training(record, server_round))
        assert record["state"] == "TRAINING", json.dumps(record["failure"], indent=1)
        return record

    def suspended(self, training_id, server_round):
        """Suspend the worker in the midst of a round's training and return its process."""
        while True:
            worker = psutil.Process(self.training(training_id, server_round)["worker"]["pid"])
            worker.suspend()
            time.sleep(0.3)  # what it said before has arrived by then
            if in_training(self.record(training_id), server_round):
                return worker
            worker.resume()

    def events(self, training_id, kind):
        """Return the contents of all events of a run that is over."""
        text = self.call("GET", f"/job/{training_id}/events").text
        blocks = [
            dict(line.split(": ", 1) for line in block.splitlines() if ": " in line) for block in text.split("\n\n")
        ]
        return [json.loads(block["data"])["content"] for block in blocks if block.get("event") == kind]

    def states(self, training_id):
        return [content["state"] for content in self.events(training_id, "state")]

    def clear(self):
        """Stop what a test left."""
        for training_id in self.posted:
            with contextlib.suppress(httpx.HTTPError):
                self.http.delete(f"/job/{training_id}")
        self.posted.clear()


class House:
    """A collector and a node for each share of data: two with digits, unless others are given."""

    def __init__(self, programs, given=None, collector=None, **environment):
        self.collector = Service(programs, "collector", "collector", "serve", **collector or {})
        environment["REPOSITORY_ADDRESS"] = f"127.0.0.1:{self.collector.port}"
        given = given or shares()
        self.nodes = [Service(programs, f"node{n}", "serve", **environment) for n in range(1, len(given) + 1)]
        self.services = [self.collector, *self.nodes]
        for node, share in zip(self.nodes, given, strict=True):
            write(node.data, *share)
        for service in self.services:
            service.start()
        for service in self.services:
            service.ready()
        self.add_model("digits", digits_artefact([64], hidden=[32]))
        self.new_training()

    def add_model(self, name, content, *, version="1", library="pytorch"):
        metadata = {"model_name": name, "model_version": version, "meta": {"library": library}}
        self.collector.call("POST", "/model/", json=metadata)
        self.collector.call("PUT", f"/model/{name}/{version}", content=content)

    def new_training(self):
        self.id = f"t-{uuid.uuid4().hex[:8]}"
        self.port = free_port()

    def collect(self, rounds, *, nodes=2, federation="flower-grpc", **changes):
        """Start a training at the collector."""
        self.new_training()
        plan = {"min_fit_clients": nodes, "min_evaluate_clients": nodes, "min_available_clients": nodes}
        training = {
            "model_name": "digits",
            "model_version": "1",
            "federation": federation,
            "port": self.port,
            "server_conf": {"num_rounds": rounds, "round_timeout": 150, "wait_timeout": 150},
            "strategy_conf": plan,
        }
        return self.collector.post(self.id, training | changes)

    def job(self, *, epochs=2, **changes):
        """Return a job for a node."""
        pipeline = [{"id": "basic_norm", "parameters": {"mean": 4.9, "std": 6.0}}]
        job = {
            "server_address": f"127.0.0.1:{self.port}",
            "model_name": "digits",
            "model_version": "1",
            "num_classes": 10,
            "eval_func": "categorical_crossentropy",
            "eval_metrics": ["accuracy"],
            "config": [{"batch_size": 32, "epochs": epochs}],
            "optimizer_config": {"optimizer": "sgd", "lr": 0.1},
            "transformations": {"train": pipeline, "test": pipeline},
        }
        return job | changes

    def accuracy(self, records, server_round=-1):
        """Return the global model's accuracy on all test digits of all nodes."""
        sizes = [len(np.load(node.data / "y_test.npy")) for node in self.nodes]
        found = [record["history"][server_round]["evaluation"]["accuracy"] for record in records]
        return sum(size * one for size, one in zip(sizes, found, strict=True)) / sum(sizes)

    def clear(self):
        for service in self.services:
            service.clear()


def shares():
    """Return digits for two nodes."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return split(x.astype("uint8"), y)


def split(x, y):
    """Share data of ten classes so that the first node has most of 0 to 4 and the second most of 5 to 9."""
    first = np.random.default_rng(7).random(len(y)) < np.where(y < 5, 0.85, 0.15)
    return [(x[first], y[first]), (x[~first], y[~first])]


def write(folder, x, y):
    folder.mkdir(parents=True)
    cut = len(x) // 5
    for name, part in (("test", slice(cut)), ("train", slice(cut, None))):
        np.save(folder / f"x_{name}.npy", x[part])
        np.save(folder / f"y_{name}.npy", y[part].astype("int64"))


def digits_artefact(input_size, architecture="mlp", library="pytorch", **config):
    """Return a model: an archive with a manifest alone, its weights come from the seed."""
    config = {"input_size": input_size, "num_classes": 10, **config}
    manifest = {"format": "architecture", "library": library, "architecture": architecture, "seed": 1}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest | {"config": config}))
    return content.getvalue()


@pytest.fixture
def programs(tmp_path):
    """Start programs; all end with the test."""
    started = Programs(tmp_path)
    yield started
    started.end()


@pytest.fixture(scope="session")
def shared_house(tmp_path_factory):
    started = Programs(tmp_path_factory.mktemp("house"))
    try:
        yield House(started)
    finally:
        started.end()


@pytest.fixture
def house(shared_house):
    """A collector and two nodes that tests share; this test's jobs end with it."""
    yield shared_house
    shared_house.clear()


@pytest.fixture
def own_house(programs):
    """A collector and two nodes that this test may kill."""
    return House(programs)


@pytest.fixture
def house_of(programs):
    """Open a house over data of the test's own: ``house_of(x, y)``, ten classes."""
    return lambda x, y: House(programs, split(x, y))


@pytest.fixture
def house_with(programs):
    """Open a house whose nodes have further settings: ``house_with(NAME="value")``."""
    return lambda **environment: House(programs, **environment)


@pytest.fixture
def stock_server(programs):
    """Start a stock Flower server: ``stock_server(house, "fedavg.py", *arguments)``; its last file is returned."""

    def start(house, program, *arguments):
        house.new_training()
        out = programs.folder / "out.npz"
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "HOME": str(programs.folder)}
        programs.start(PROGRAMS / program, house.port, out, *arguments, log="server.log", **quiet)
        return out

    return start


@pytest.fixture
def artefact():
    """Make a model of ten classes: ``artefact(input_size, architecture="mlp", library="pytorch", **config)``."""
    return digits_artefact
