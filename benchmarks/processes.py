"""Processes of a benchmark: started in groups of their own in one folder, and all ended with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path


class Bench:
    """A temporary folder, and processes in groups of their own that all end with it."""

    def __init__(self, stack: ExitStack) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locex-benchmark-")))
        self.stack = stack
        self.environment = dict(os.environ) | {
            "HOME": str(self.folder),
            "FLWR_HOME": str(self.folder / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[bytes]:
        """Start a program; ``environment`` is added to the benchmark's."""
        log = self.stack.enter_context((self.folder / "log").open("ab"))
        process = subprocess.Popen(
            [str(part) for part in arguments],
            env=self.environment | environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.stack.callback(kill, process)
        return process

    def python(self, script: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a script, e.g. the benchmark itself in another role."""
        return self.start(sys.executable, Path(script).resolve(), *arguments)

    def read(self, path: Path, seconds: float) -> list[float]:
        """Wait for a file of numbers and read it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(OSError, ValueError):
                return list(json.loads(path.read_text()))
            time.sleep(0.1)
        tail = "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-30:])
        raise SystemExit(f"{path.name} did not come in {seconds:g} s; the end of the log:\n{tail}")


def kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        time.sleep(0.05)
    raise SystemExit("a server did not come up")


def start_superlink(bench: Bench, port: int) -> None:
    """Start a stock SuperLink and wait until it listens."""
    options = ["--insecure", "--disable-runtime-dependency-installation", "--host", "127.0.0.1", "--port", port]
    await_port(port, bench.start("flower-superlink", *options))
