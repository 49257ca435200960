import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from locex.processes.child import Child, python

HERE = Path(__file__).parent


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def collector_port():
    """A port that was free a moment ago."""
    return _free_port()


@pytest.fixture
def flower_node(tmp_path):
    """Start a node in a process of its own: ``flower_node(port, step, examples, *faults, script=…)``."""
    started = []

    def start(port, step, examples, *faults, script="controller_client.py"):
        argv = [sys.executable, HERE / script, f"127.0.0.1:{port}", str(step), str(examples), *map(str, faults)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


class Engine:
    """A training process and what it said."""

    def __init__(self, child):
        self.child = child
        self.messages = []

    async def until(self, kind, **fields):
        """Return the next message of this kind with these fields; fail when the process ends before."""
        while (message := await self.child.receive()) is not None:
            self.messages.append(message)
            if message["kind"] == kind and fields.items() <= message.items():
                return message
        raise AssertionError(f"no {kind}: {self.messages} {self.child.log}")

    async def end(self):
        """Take every message and return the exit code."""
        while (message := await self.child.receive()) is not None:
            self.messages.append(message)
        return await self.child.wait()

    def of(self, kind):
        return [message for message in self.messages if message["kind"] == kind]


@pytest.fixture
async def training_engine(tmp_path, collector_port):
    """Start a training process: ``await training_engine(plan, **spec)``; its folder is ``tmp_path / "run"``."""
    children = []

    async def start(plan, **spec):
        child = await Child.start(python("locex_controller.training"))
        children.append(child)
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        common = {"training_id": "t", "port": collector_port, "folder": str(folder), "plan": plan}
        await child.send({**common, **spec})
        return Engine(child)

    yield start
    for child in children:
        child.kill()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(child.wait(), 5)


@pytest.fixture
def collector_environment(tmp_path, collector_port):
    """The environment of a collector whose state lies in ``tmp_path / "state"``."""
    settings = {"PORT": "0", "FEDERATED_PORT": str(collector_port), "LOCEX_STATE_FOLDER": str(tmp_path / "state")}
    return {**os.environ, **settings}
