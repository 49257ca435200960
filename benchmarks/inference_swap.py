"""Versions swapped under load, beside MLServer in one run: failed and wrong replies, and p99 against that of calm.

A perceptron whose answer is its version's number is loaded anew again and again while connections ask it without a
pause, from a process of their own. A reply is wrong where it is not what the version that it names answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import psutil
import uvloop
from inference_load import Connection, Load
from inference_models import Model, write_constant
from inference_servers import Server, peer_python, start_locex, start_mlserver
from processes import Bench

NAME = "constant"
PHASES = ("calm", "swapping")


class Phase(Load):
    """What one phase saw: latencies, replies that failed, replies of another version than they name."""

    def __init__(self) -> None:
        super().__init__()
        self.measuring = True
        self.wrong = 0
        self.versions: set[str] = set()

    def read(self, body: bytes) -> None:
        told = json.loads(body)
        self.versions.add(told["model_version"])
        self.wrong += told["outputs"][0]["data"][0] != float(told["model_version"])


class Checked(Connection):
    """A connection that reads what it gets."""

    def data_received(self, data: bytes) -> None:
        before, arrived = len(self.load.latencies), self.buffer + data
        super().data_received(data)
        if len(self.load.latencies) > before and arrived.startswith(b"HTTP/1.1 200"):
            self.load.read(arrived[arrived.find(b"\r\n\r\n") + 4 :])


async def load(port: int, connections: int) -> None:
    """Ask until the input ends; each of its lines begins another phase. Print what the phases saw."""
    body = json.dumps(
        {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]}
    ).encode()
    lines = [f"POST /v2/models/{NAME}/infer HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    request = "\r\n".join([*lines, f"Content-Length: {len(body)}"]).encode() + b"\r\n\r\n" + body
    loop = asyncio.get_running_loop()
    phases: dict[str, Phase] = {}
    clients = [
        (await loop.create_connection(lambda: Checked(Phase(), request), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    print("ready", flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        phases[line] = phase = Phase()
        for client in clients:
            client.load = phase
    ended = Phase()
    ended.ended = True
    for client in clients:
        client.load = ended
    print(json.dumps({name: summary(phase) for name, phase in phases.items()}))


def summary(phase: Phase) -> dict:
    milliseconds = np.array(phase.latencies) * 1e3
    return {
        "requests": len(milliseconds),
        "failed": phase.errors,
        "wrong": phase.wrong,
        "versions": len(phase.versions),
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
        "max_ms": float(milliseconds.max()),
    }


def swap_locex(bench: Bench, server: Server, version: int) -> None:
    """Put a version into the folder of models and have it loaded."""
    folder = bench.folder / f"models-{server.name}" / NAME / str(version)
    folder.mkdir()
    write_constant(folder / "model.onnx", version)
    post(server, f"/v2/repository/models/{NAME}/load")


def swap_mlserver(bench: Bench, server: Server, version: int) -> None:
    """Point the model's settings to another file and have it loaded."""
    path = bench.folder / f"{version}.onnx"
    write_constant(path, version)
    settings = bench.folder / "mlserver-0" / NAME / "model-settings.json"
    content = json.loads(settings.read_text())
    content["parameters"] = {"uri": str(path), "version": str(version)}
    settings.write_text(json.dumps(content))
    post(server, f"/v2/repository/models/{NAME}/load")


def post(server: Server, path: str) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{server.http}{path}", b"", method="POST")
    urllib.request.urlopen(request, timeout=120).close()


def measured(bench: Bench, server: Server, swap: object, arguments: argparse.Namespace) -> dict:
    """Load a server, calm first, then while versions are swapped."""
    argv = [sys.executable, __file__, "--load", str(server.http), "--connections", str(arguments.connections)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # it is connected
        begin(process.stdin, "warm")
        time.sleep(1)
        begin(process.stdin, "calm")
        time.sleep(arguments.seconds)
        begin(process.stdin, "swapping")
        began = time.monotonic()
        for number in range(arguments.swaps):
            swap(bench, server, number + 2)
            time.sleep(max(0.0, arguments.pause * (number + 1) - (time.monotonic() - began)))
        seconds = time.monotonic() - began
        time.sleep(arguments.pause)  # the last version is to answer too
        process.stdin.close()
        told = json.loads(process.stdout.read())
    return told | {"seconds": seconds}


def begin(stdin: IO[str], phase: str) -> None:
    stdin.write(f"{phase}\n")
    stdin.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=25)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10, help="of the calm before")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds from one swap to the next, at least")
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments; kept, and made where absent")
    parser.add_argument("--alone", action="store_true", help="without MLServer")
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        uvloop.run(load(arguments.load, arguments.connections))
        return
    print(f"load of the machine before: {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores\n")
    headings = ("requests", "failed", "wrong", "p50 ms", "p99 ms", "max ms", "versions")
    print(f"{'':<20}{''.join(f'{one:>10}' for one in headings)}")
    with ExitStack() as stack:
        folder = arguments.peers or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locex-peers-")))
        models = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_constant(models / "1.onnx", 1)
        model = Model(NAME, models / "1.onnx", np.zeros((1, 64), np.float32))
        starts = {"locex": (start_locex, swap_locex)}
        if not arguments.alone:
            python = peer_python("mlserver", folder)
            starts["MLServer"] = (lambda bench, given: start_mlserver(bench, given, python), swap_mlserver)
        for name, (start, swap) in starts.items():
            with ExitStack() as inner:
                bench = Bench(inner)
                told = measured(bench, start(bench, [model]), swap, arguments)
            for phase in PHASES:
                row = told[phase]
                numbers = "".join(f"{row[key]:>10}" for key in ("requests", "failed", "wrong"))
                numbers += "".join(f"{row[key]:>10.2f}" for key in ("p50_ms", "p99_ms", "max_ms"))
                print(f"{name + ', ' + phase:<20}{numbers}{row['versions']:>10}", flush=True)
            ratio = told["swapping"]["p99_ms"] / told["calm"]["p99_ms"]
            each = told["seconds"] / arguments.swaps
            print(f"{name}: p99 while swapping / calm: {ratio:.2f}; a swap every {each:.2f} s\n")
    print(f"load of the machine after: {psutil.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
