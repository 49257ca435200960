"""The load of the inference benchmarks, a process of its own: ``inference_load.py SPEC`` prints what it measured.

The specification is JSON: ``protocol`` (http or grpc), ``host``, ``port``, ``path``, ``body`` (a file with the bytes of
one request), ``headers``, ``connections``, ``seconds``, ``warmup``, ``pid`` (of the server, for the CPU time of it and
its children over exactly the measured time). Every connection sends its next request when the answer came.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from pathlib import Path

import grpc
import psutil
import uvloop


class Load:
    """What was measured so far; only while ``measuring``."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.errors = 0
        self.measuring = False
        self.ended = False

    def take(self, began: float, *, good: bool) -> None:
        if self.measuring:
            self.errors += not good
            self.latencies.append(time.perf_counter() - began)


class Connection(asyncio.Protocol):
    """HTTP/1.1 with one request under way."""

    def __init__(self, load: Load, request: bytes) -> None:
        self.load, self.request = load, request
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._send()

    def _send(self) -> None:
        self.began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = next(
            int(line.partition(b":")[2])
            for line in self.buffer[:end].lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        if len(self.buffer) < end + 4 + length:
            return
        good = self.buffer.startswith(b"HTTP/1.1 200")
        self.buffer = b""
        self.load.take(self.began, good=good)
        if not self.load.ended:
            self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.load.ended:
            self.load.take(self.began, good=False)
            print("a connection was closed", file=sys.stderr)


async def over_http(load: Load, spec: dict, body: bytes) -> list[asyncio.Task]:
    loop = asyncio.get_running_loop()
    headers = {"Host": spec["host"], "Content-Length": len(body), **spec["headers"]}
    lines = [f"POST {spec['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    for _ in range(spec["connections"]):
        await loop.create_connection(lambda: Connection(load, request), spec["host"], spec["port"])
    return []


async def over_grpc(load: Load, spec: dict, body: bytes) -> list[asyncio.Task]:
    async def one(number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("locex.number", number)]
        options += [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        async with grpc.aio.insecure_channel(f"{spec['host']}:{spec['port']}", options) as channel:
            call = channel.unary_unary(spec["path"])
            while not load.ended:
                began, good = time.perf_counter(), True
                try:
                    await call(body)
                except grpc.aio.AioRpcError as error:
                    good = False
                    print(error.details(), file=sys.stderr)
                load.take(began, good=good)

    return [asyncio.create_task(one(number)) for number in range(spec["connections"])]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its living descendants."""
    total = 0.0
    process = psutil.Process(pid)
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            times = member.cpu_times()
            total += times.user + times.system
    return total


async def measure(spec: dict) -> dict:
    load, body = Load(), Path(spec["body"]).read_bytes()  # noqa: ASYNC240 -- nothing else runs yet
    tasks = await (over_http if spec["protocol"] == "http" else over_grpc)(load, spec, body)
    await asyncio.sleep(spec["warmup"])
    cpu, began = cpu_seconds(spec["pid"]), time.perf_counter()
    load.measuring = True
    await asyncio.sleep(spec["seconds"])
    load.measuring, seconds = False, time.perf_counter() - began
    cpu = cpu_seconds(spec["pid"]) - cpu
    load.ended = True
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    latencies = sorted(load.latencies)
    count = len(latencies)
    if not count:
        raise SystemExit("no answer came within the measured time")
    return {
        "requests": count,
        "errors": load.errors,
        "rate": count / seconds,
        "cpu_us": cpu / count * 1e6,
        "p50_ms": latencies[count // 2] * 1e3,
        "p99_ms": latencies[min(count - 1, int(count * 0.99))] * 1e3,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(json.loads(Path(sys.argv[1]).read_text())))))
