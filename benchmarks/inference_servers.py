"""The servers of the inference benchmarks: locex, and MLServer and KServe in virtual environments of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from inference_models import Model
from processes import Bench, free_port

PEERS = Path(__file__).resolve().parent / "inference_peers"
REQUIREMENTS = {
    # uvloop: MLServer's default start fails with 0.22 and later
    "mlserver": ["mlserver>=1.7,<1.8", "uvloop<0.22", "onnxruntime==1.32.0"],
    "kserve": ["kserve>=0.21,<0.22", "onnxruntime==1.32.0"],
}
_START = 120  # seconds


@dataclass(frozen=True)
class Server:
    """A running server; ``json`` and the others say what it speaks."""

    name: str
    pid: int
    http: int
    grpc: int
    protocols: tuple[str, ...]

    def memory_mb(self) -> float:
        """Return the resident memory of its processes, in MiB."""
        process = psutil.Process(self.pid)
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 2**20


def peer_python(name: str, folder: Path) -> Path:
    """Return the interpreter of a peer's environment below a folder; make the environment if it is not there."""
    place = folder / name
    python = place / "bin" / "python"
    if not python.exists():
        print(f"installing {name} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]], check=True)
    return python


def start_locex(bench: Bench, models: list[Model], *, name: str = "locex", options: dict | None = None) -> Server:
    """Serve models with locex; ``options`` are what their model.json says."""
    folder = bench.folder / f"models-{name}"
    for model in models:
        version = folder / model.name / "1"
        version.mkdir(parents=True)
        shutil.copy(model.path, version / "model.onnx")
        if options:
            (folder / model.name / "model.json").write_text(json.dumps(options))
    http, grpc = free_port(), free_port()
    process = bench.start(
        sys.executable,
        "-m",
        "locex.cli",
        "inference",
        "serve",
        PORT=str(http),
        HOST="127.0.0.1",
        LOCEX_GRPC_PORT=str(grpc),
        LOCEX_MODELS_FOLDER=str(folder),
        LOCEX_STATE_FOLDER=str(bench.folder / f"state-{name}"),
    )
    return _ready(Server(name, process.pid, http, grpc, ("json", "binary", "grpc")), process, models)


def start_mlserver(bench: Bench, models: list[Model], python: Path, *, workers: int = 0) -> Server:
    """Serve models with MLServer, in its own process or in workers."""
    folder = bench.folder / f"mlserver-{workers}"
    folder.mkdir()
    shutil.copy(PEERS / "mlserver_onnx.py", folder)
    http, grpc, metrics = free_port(), free_port(), free_port()
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": workers,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    for model in models:
        (folder / model.name).mkdir()
        content = {
            "name": model.name,
            "implementation": "mlserver_onnx.Onnx",
            "parameters": {"uri": str(model.path), "version": "1"},
        }
        (folder / model.name / "model-settings.json").write_text(json.dumps(content))
    path = {"PYTHONPATH": str(folder)}
    process = bench.start(python.parent / "mlserver", "start", folder, **path)
    name = "MLServer" if workers == 0 else f"MLServer, {workers} worker"
    return _ready(Server(name, process.pid, http, grpc, ("json", "grpc")), process, models)


def start_kserve(bench: Bench, models: list[Model], python: Path) -> Server:
    """Serve models with KServe."""
    http, grpc = free_port(), free_port()
    named = [f"{model.name}={model.path}" for model in models]
    process = bench.start(python, PEERS / "kserve_onnx.py", http, grpc, *named)
    return _ready(Server("KServe", process.pid, http, grpc, ("json", "binary", "grpc")), process, models)


def _ready(server: Server, process: subprocess.Popen[bytes], models: list[Model]) -> Server:
    until = time.monotonic() + _START
    waiting = [f"http://127.0.0.1:{server.http}/v2/models/{model.name}/ready" for model in models]
    while waiting and time.monotonic() < until and process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(waiting[0], timeout=5).close()
            del waiting[0]
            continue
        time.sleep(0.1)
    if waiting:
        raise SystemExit(f"{server.name} did not come up")
    return server
