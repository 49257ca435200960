"""The service as a process, with models of every data type, and the clients that people have."""

from __future__ import annotations

import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from onnx import TensorProto, helper, numpy_helper

from locex_inference.tensors import DTYPES

_START = 120  # seconds
_TYPES = {
    "BOOL": TensorProto.BOOL,
    "BYTES": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    **{f"{sign}INT{bits}": getattr(TensorProto, f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
CLIENTS = {
    "http": triton_http,
    "grpc": triton_grpc,
    "http.aio": triton_http_aio,
    "grpc.aio": triton_grpc_aio,
}


def _save(graph):
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def identity(datatype):
    tensors = [helper.make_tensor_value_info(name, _TYPES[datatype], ["n", "m"]) for name in ("x", "y")]
    return _save(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", tensors[:1], tensors[1:]))


def two(factor):
    """Return a model of two inputs, and two outputs: factor * (a + b), and a - b."""
    names = ("a", "b", "sum", "difference")
    a, b, total, difference = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in names)
    nodes = [
        helper.make_node("Add", ["a", "b"], ["plain"]),
        helper.make_node("Mul", ["plain", "factor"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
    ]
    weights = [numpy_helper.from_array(np.full(1, factor, np.float32), "factor")]
    return _save(helper.make_graph(nodes, "two", [a, b], [total, difference], weights))


def _put(folder, model, version, content, options=None):
    place = folder / model / version
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(content)
    if options:
        (folder / model / "model.json").write_text(json.dumps(options))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Service:
    """The service's addresses and process."""

    def __init__(self, folder, **environment):
        self.http, self.grpc, self.folder = free_port(), free_port(), folder
        self.log = folder / "log"
        log = self.log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "locex.cli", "inference", "serve"],
            env=os.environ
            | {
                "HOST": "127.0.0.1",
                "PORT": str(self.http),
                "LOCEX_GRPC_PORT": str(self.grpc),
                "LOCEX_MODELS_FOLDER": str(folder / "models"),
                "LOCEX_STATE_FOLDER": str(folder / "state"),
                "LOCEX_SHARED_MEMORY": "1",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http}"

    def ready(self):
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with suppress(OSError):
                urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=10).close()
                return self
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def end(self):
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def start_service():
    """Start services that end with the session."""
    services = []

    def start(folder, **environment):
        services.append(Service(folder, **environment))
        return services[-1].ready()

    yield start
    for service in services:
        service.end()


@pytest.fixture(scope="session")
def service(tmp_path_factory, start_service):
    folder = tmp_path_factory.mktemp("conformance")
    models = folder / "models"
    quick = {"warmup": [1]}
    for datatype in DTYPES:
        _put(models, f"identity-{datatype}", "1", identity(datatype), quick)
    _put(models, "two", "1", two(1), quick)
    _put(models, "two", "2", two(10), quick)
    _put(models, "bounded", "1", two(1), {"max_batch_size": 4, **quick})
    _put(models, "removable", "1", two(1), quick)
    return start_service(folder)


class Client:
    """One of tritonclient's four clients: what it is asked for by name, with answers as plain JSON values."""

    def __init__(self, kind, client):
        self.kind, self.client, self.module = kind, client, CLIENTS[kind]

    @property
    def over_http(self):
        return self.kind.startswith("http")

    async def ask(self, name, *arguments, **named):
        """Call a method that answers with metadata, settings, ...; 64-bit numbers of gRPC are texts in its JSON."""
        if not self.over_http and name.startswith(("get_", "update_")):
            named["as_json"] = True
        made = getattr(self.client, name)(*arguments, **named)
        return await made if inspect.isawaitable(made) else made

    def input(self, name, array, datatype, *, binary=True):
        tensor = self.module.InferInput(name, list(array.shape), datatype)
        if self.over_http:
            tensor.set_data_from_numpy(array, binary_data=binary)
        else:
            tensor.set_data_from_numpy(array)
        return tensor

    def output(self, name, *, binary=True, **options):
        if self.over_http:
            options["binary_data"] = binary
        return self.module.InferRequestedOutput(name, **options)

    async def infer(self, model, inputs, **named):
        return await self.ask("infer", model, inputs, **named)


@pytest.fixture(params=list(CLIENTS))
async def client(request, service):
    """Each of the four clients of tritonclient, connected."""
    kind = request.param
    port = service.http if kind.startswith("http") else service.grpc
    connected = CLIENTS[kind].InferenceServerClient(f"127.0.0.1:{port}")
    yield Client(kind, connected)
    closing = connected.close()
    if inspect.isawaitable(closing):
        await closing


def pytest_terminal_summary(terminalreporter):
    """Print how many cases of the clients passed."""
    reports = {
        outcome: [
            report
            for report in terminalreporter.stats.get(outcome, ())
            if "test_inference_conformance" in report.nodeid
        ]
        for outcome in ("passed", "failed", "error")
    }
    counts = {outcome: len([one for one in found if one.when == "call"]) for outcome, found in reports.items()}
    total = counts["passed"] + counts["failed"] + len(reports["error"])
    if total:
        terminalreporter.write_line(f"conformance with the protocol's clients: {counts['passed']} of {total} cases")
