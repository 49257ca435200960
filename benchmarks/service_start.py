"""Start and idle memory of the node's service against stock `flower-supernode`, in one run.

    python benchmarks/service_start.py [--repeats 5]

Ready means: the service answers GET /readyz with 200; the SuperNode has registered at a running SuperLink (which the
SuperLink's log tells). Memory is the resident set of the process and all its descendants, 3 s after it was ready; the
service's spare worker is told beside it. Repeats alternate. Also measured: POST /job/config to its verdict, with a
spare worker and without, for a job that ends with its verdict because its server is nowhere.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import time
import urllib.request
import zipfile
from contextlib import ExitStack, suppress
from typing import Any

import psutil
from processes import Bench, free_port, kill, start_superlink

SETTLE = 3.0  # seconds
VERDICTS = 15
MANIFEST = {
    "format": "architecture",
    "library": "pytorch",
    "architecture": "mlp",
    "config": {"input_size": [4], "num_classes": 2},
}


def memory(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Return the resident MiB of a process, and of its descendants."""
    parent = psutil.Process(process.pid)
    children = sum(child.memory_info().rss for child in parent.children(recursive=True))
    return parent.memory_info().rss / 2**20, children / 2**20


def service(*, spare: bool) -> tuple[float, float, float]:
    """Return seconds to readiness, MiB of the service, MiB of its spare worker."""
    with ExitStack() as stack:
        bench = Bench(stack)
        began = time.perf_counter()
        process, _ = start_service(bench, spare=spare)
        seconds = time.perf_counter() - began
        time.sleep(SETTLE)
        return seconds, *memory(process)


def supernode() -> tuple[float, float]:
    """Return seconds to registration and MiB of the SuperNode with its descendants."""
    with ExitStack() as stack:
        bench = Bench(stack)
        port = free_port()
        start_superlink(bench, port)
        began = time.perf_counter()
        options = ["--insecure", "--superlink", f"127.0.0.1:{port}", "--port", free_port()]
        process = bench.start("flower-supernode", *options)
        while "ActivateNode" not in log(bench):
            if time.perf_counter() - began > 120:
                raise SystemExit(f"the SuperNode did not register:\n{log(bench)}")
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        time.sleep(SETTLE)
        own, children = memory(process)
        return seconds, own + children


def log(bench: Bench) -> str:
    return (bench.folder / "log").read_text(errors="replace")


def verdicts(*, spare: bool) -> list[float]:
    """Return seconds from POST to its answer, each job stopped before the next."""
    with ExitStack() as stack:
        bench = Bench(stack)
        process, url = start_service(bench, spare=spare)
        body = artefact()
        ask(f"{url}/model/", "POST", {"model_name": "m", "model_version": "1", "meta": {"library": "pytorch"}})
        send(
            urllib.request.Request(
                f"{url}/model/m/1", data=body, method="PUT", headers={"Content-Type": "application/zip"}
            )
        )
        seconds = []
        for number in range(VERDICTS):
            time.sleep(1.5 if spare else 0.2)  # a new spare worker starts meanwhile
            began = time.perf_counter()
            ask(f"{url}/job/config/{number}/", "POST", JOB)
            seconds.append(time.perf_counter() - began)
            ask(f"{url}/job/{number}", "DELETE")
        kill(process)
        return seconds


JOB = {
    "server_address": "127.0.0.1:9",
    "model_name": "m",
    "model_version": "1",
    "eval_func": "categorical_crossentropy",
    "config": [{"batch_size": "64", "epochs": "1"}],
    "optimizer_config": {"optimizer": "adam", "learning_rate": "0.005"},
    "scheduler_config": {"scheduler": "steplr", "step_size": 5},
    "transformations": {"train": [{"id": "basic_norm"}], "test": [{"id": "basic_norm"}]},
    "privacy-mechanisms": {},
}


def start_service(bench: Bench, *, spare: bool) -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    environment = {
        "LOCEX_STATE_FOLDER": str(bench.folder / "state"),
        "DATA_FOLDER": str(bench.folder),
        "LOCEX_SPARE_WORKER": "1" if spare else "0",
    }
    process = bench.start("locex", "serve", "--port", port, **environment)
    url = f"http://127.0.0.1:{port}"
    for _ in range(3000):
        with suppress(OSError), urllib.request.urlopen(f"{url}/readyz") as answer:
            if answer.status == 200:
                return process, url
        time.sleep(0.01)
    raise SystemExit(f"the service did not become ready:\n{log(bench)}")


def artefact() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("manifest.json", json.dumps(MANIFEST))
    return content.getvalue()


def ask(url: str, method: str, body: Any = None) -> None:
    data = None if body is None else json.dumps(body).encode()
    send(urllib.request.Request(url, data=data, method=method, headers={"Content-Type": "application/json"}))


def send(request: urllib.request.Request) -> None:
    with urllib.request.urlopen(request) as answer:
        answer.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    bare, spared, stock = [], [], []
    for _ in range(repeats):
        bare.append(service(spare=False))
        stock.append(supernode())
        spared.append(service(spare=True))
    ready, memory_bare = (statistics.median(column) for column in list(zip(*bare, strict=True))[:2])
    stock_ready, stock_memory = (statistics.median(column) for column in zip(*stock, strict=True))
    spare = statistics.median(row[2] for row in spared)
    print(f"{'':34}{'ready':>10}{'memory':>12}")
    print(f"{'locex serve, no spare worker':34}{ready:>8.2f} s{memory_bare:>8.0f} MiB")
    print(f"{'  its spare worker, beside it':34}{'':>10}{spare:>8.0f} MiB")
    print(f"{'flower-supernode (stock)':34}{stock_ready:>8.2f} s{stock_memory:>8.0f} MiB")
    print(f"{'stock / locex':34}{stock_ready / ready:>9.1f}x{stock_memory / memory_bare:>11.1f}x")
    print()
    for label, has_spare in (("warm spare worker", True), ("cold worker", False)):
        seconds = verdicts(spare=has_spare)
        median, slowest = statistics.median(seconds) * 1000, max(seconds) * 1000
        print(f"POST /job/config to verdict, {label}: median {median:.0f} ms, slowest {slowest:.0f} ms")


if __name__ == "__main__":
    main()
