"""What the tests of both wires share: a participant with NumPy weights, and real Flower servers as processes.

What servers and nodes told is printed at the end of each test, which pytest shows where one fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from locex.api import Evaluation, FederationContext, Stopped, Update

HERE = Path(__file__).parent
PROJECT = """
[project]
name = "demo"
version = "1.0.0"
description = ""
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41.0"]
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "tests"
fab-format-version = 1
flwr-version-target = "1.41.0"
[tool.flwr.app.components]
serverapp = "demo.server:app"
clientapp = "demo.client:app"
[tool.flwr.app.config]
rounds = 2
nodes = 2
timeout = 150.0
out = ""
"""

CONNECTION = '[superlink]\ndefault = "local"\n[superlink.local]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
LONGEST_LOG = 20_000  # characters of it that are shown


class FakeParticipant:
    """Adds ``step`` to every weight in each fit."""

    def __init__(self, step=1.0, examples=1, rounds=None, seconds=0.0):
        self.step, self.examples, self.rounds, self.seconds = step, examples, rounds, seconds
        self.weights = {"layer.weight": np.zeros((2, 3), np.float32), "layer.count": np.zeros((), np.int64)}
        self.stop = threading.Event()
        self.fits, self.evaluations, self.told = [], [], []
        self.refuse, self.metrics, self.loss = {}, {}, 0.5

    @property
    def complete(self):
        return self.rounds is not None and min(len(self.fits), len(self.evaluations)) >= self.rounds

    @property
    def stopping(self):
        return self.stop.is_set()

    def waiting(self, reason):
        self.told.append(reason)

    def parameters(self):
        return self.weights

    def fit(self, parameters, config):
        self.fits.append((parameters, config))
        if len(self.fits) in self.refuse:
            raise self.refuse[len(self.fits)]
        if self.stop.wait(self.seconds):
            raise Stopped
        arrays = parameters.values() if isinstance(parameters, dict) else parameters
        new = {
            name: (array + self.step).astype(own.dtype)
            for (name, own), array in zip(self.weights.items(), arrays, strict=True)
        }
        return Update(new, self.weights, self.examples, {"loss": self.loss, **self.metrics})

    def evaluate(self, parameters, config):
        self.evaluations.append((parameters, config))
        return Evaluation(self.loss, self.examples, {"accuracy": 0.25})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(port, process, seconds=90):
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server did not come up")


def await_that(condition, seconds=150):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def kit():
    """The functions and classes of this file, for tests that cannot import it."""
    return sys.modules[__name__]


@pytest.fixture
def spawn(tmp_path):
    """Start programs in process groups of their own, with Flower's settings; all are killed at the end."""
    processes = []
    binaries = Path(sys.executable).parent
    # Not measured: coverage drops what one thread imports while another sees a new sys.path, a ServerApp itself even.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment |= {"HOME": str(tmp_path), "FLWR_HOME": str(tmp_path / "flwr"), "FLWR_TELEMETRY_ENABLED": "0"}
    environment |= {"FLWR_DISABLE_UPDATE_CHECK": "1", "PATH": f"{binaries}:{environment['PATH']}"}

    def start(*arguments, log="server.log"):
        with (tmp_path / log).open("ab") as output:
            process = subprocess.Popen(
                [str(part) for part in arguments],
                env=environment,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        processes.append(process)
        return process

    yield start
    for process in processes:
        kill(process)
    for log in sorted(tmp_path.glob("*.log")):
        print(f"--- {log.name}", log.read_text(errors="replace")[-LONGEST_LOG:], sep="\n")


def kill(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def join(tmp_path):
    """Make a federation of a plugin class and run it with a participant in a thread; returns the future."""
    joined = []

    with ThreadPoolExecutor() as pool:

        def run(plugin, participant, address, *, patience=30.0, insecure=True, roots=None, mechanisms=(), **config):
            settings = {"backoff_initial": 0.05, "backoff_max": 0.3, **config}
            settings = plugin.locex_config_model().model_validate(settings)
            context = FederationContext(address, tmp_path / "run", roots, insecure, patience, mechanisms)
            federation = plugin.locex_create_federation(settings, context)
            future = pool.submit(federation.run, participant)
            joined.append((participant, future))
            return future

        yield run
        for participant, _ in joined:
            participant.stop.set()
    for number, (participant, future) in enumerate(joined, start=1):
        print(f"--- node {number}, {len(participant.fits)} fits, {future}", *participant.told, sep="\n")


@pytest.fixture
def superlink(kit, spawn):
    """Start a SuperLink; returns its process and port."""

    def start(port=None):
        port = port or kit.free_port()
        options = ["--insecure", "--disable-runtime-dependency-installation", "--host", "127.0.0.1", "--port", port]
        process = spawn("flower-superlink", *options)
        kit.await_port(port, process)
        return process, port

    return start


@pytest.fixture
def submit(kit, spawn, tmp_path):
    """Submit a run of the stock server app; returns the file of its results."""
    package = tmp_path / "app" / "demo"
    package.mkdir(parents=True)
    (package.parent / "pyproject.toml").write_text(PROJECT)
    (package.parent / "LICENSE").write_text("Apache-2.0")
    (package / "__init__.py").touch()
    (package / "client.py").write_text(
        "raise RuntimeError('a node must never execute what a server sends')\napp = None\n"
    )
    (tmp_path / "flwr").mkdir()

    def run(port, rounds=2, nodes=2, timeout=150.0, program="message_api_server.py"):
        shutil.copy(kit.HERE / "programs" / program, package / "server.py")
        (tmp_path / "flwr" / "config.toml").write_text(CONNECTION.format(port=port))
        out = tmp_path / f"results-{port}-{rounds}.json"
        overrides = f'rounds={rounds} nodes={nodes} timeout={timeout} out="{out}"'
        log = f"submit-{rounds}.log"
        process = spawn("flwr", "run", package.parent, "local", "--format", "json", "-c", overrides, log=log)
        process.wait(150)
        assert '"success": true' in (tmp_path / log).read_text(), (tmp_path / log).read_text()
        return out

    return run
