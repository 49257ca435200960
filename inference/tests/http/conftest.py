"""A real server on loopback over models that are plain NumPy, by aiohttp alone or with the fast way in before it."""

from __future__ import annotations

import io
import json
import socket
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from locex.api import TensorInfo
from locex.web.auth import Access
from locex.web.metrics import METRICS
from locex_inference.access_log import AccessLog
from locex_inference.controls import Controls
from locex_inference.engine.engine import Engine
from locex_inference.http.app import make_app
from locex_inference.http.connections import FastSite
from locex_inference.http.infer import Inference
from locex_inference.http.keys import CONTROLS, INFERENCE, MEMORY, MODEL_LIMIT, SERVING
from locex_inference.metrics import ModelMetrics
from locex_inference.models.loading import Conditions, Loader
from locex_inference.models.options import ModelOptions
from locex_inference.models.registry import Registry
from locex_inference.models.serving_folder import ModelRepository
from locex_inference.models.version import ModelVersion
from locex_inference.service import Service
from locex_inference.serving import Statistics
from locex_inference.shared_memory import SharedMemory
from locex_inference.tensors import DTYPES
from locex_inference.tracing import Tracing

FAST = {1: 20e-6, 32: 60e-6}


class Function:
    """An inferencer that is a function of arrays; it remembers the calls and can be held up."""

    def __init__(self, inputs, outputs, function):
        self.inputs = tuple(TensorInfo(*info) for info in inputs)
        self.outputs = tuple(TensorInfo(*info) for info in outputs)
        self.function = function
        self.rows = []
        self.asked = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)

    def run(self, inputs, outputs):
        self.rows.append(len(next(iter(inputs.values()))))
        self.asked.append(tuple(outputs))
        self.begun.release()
        assert self.gate.wait(60)
        results = self.function(**inputs)
        return {name: results[name] for name in outputs}

    def close(self):
        pass


def double():
    return Function(
        [("x", "FP32", (-1, 3))],
        [("y", "FP32", (-1, 3)), ("total", "FP32", (-1, 1))],
        lambda x: {"y": 2 * x, "total": x.sum(1, keepdims=True)},
    )


def upper():
    return Function(
        [("text", "BYTES", (-1, 1))],
        [("upper", "BYTES", (-1, 1))],
        lambda text: {"upper": np.array([[each.upper() for each in row] for row in text], object).reshape(text.shape)},
    )


def echo():
    """Return a model with an input and an output of every data type."""
    infos = [(name.lower(), name, (-1, 2)) for name in DTYPES]
    return Function(infos, [(f"{name}_out", *rest) for name, *rest in infos], lambda **given: {
        f"{name}_out": array for name, array in given.items()
    })  # fmt: skip


def version_of(name, inferencer, version="1", *, costs=FAST, batching=False, options=None, **more):
    return ModelVersion(
        name,
        version,
        f"digest of {version}",
        "numpy_function",
        inferencer.inputs,
        inferencer.outputs,
        inferencer,
        ModelOptions(**(options or {})),
        Statistics(name, version),
        costs=costs,
        batching=batching,
        **more,
    )


@dataclass
class Running:
    """A server with what it is made of."""

    url: str
    port: int
    registry: Registry
    service: Service
    engine: Engine
    memory: SharedMemory
    controls: Controls
    session: aiohttp.ClientSession
    runner: web.AppRunner
    inferencers: dict = field(default_factory=dict)

    def add(self, name, inferencer, *arguments, **options):
        self.inferencers[name] = inferencer
        version = version_of(name, inferencer, *arguments, **options)
        self.registry.publish(version)
        return version

    async def ask(self, method, path, **options):
        async with self.session.request(method, f"{self.url}/{path}", **options) as response:
            content = await response.read()
            return SimpleNamespace(status=response.status, headers=response.headers, body=content)

    async def infer(self, model, content, **options):
        body = io.BytesIO(json.dumps(content).encode())
        return await self.ask("POST", f"v2/models/{model}/infer", data=body, **options)


@pytest.fixture
async def start(tmp_path):
    """Start servers; each ends with the test."""
    ending = []

    async def begin(lane="fast", access=None, body_limit=1 << 20, log=0.0, tracing=False, ssl_context=None):
        app = make_app(access or Access(), body_limit)
        registry, controls, memory = Registry(), Controls(), SharedMemory(enabled=True)
        engine = Engine(registry)
        loader = Loader(registry, Conditions(folder=tmp_path / "models"))
        service = Service(registry, engine, ModelRepository(loader))
        await service.begin()
        app[SERVING], app[CONTROLS], app[MEMORY], app[MODEL_LIMIT] = service, controls, memory, 1 << 20
        app[INFERENCE] = Inference(service, memory, Tracing(controls, on=tracing), AccessLog(log), body_limit)
        ModelMetrics(registry, app[METRICS].registry)
        runner = web.AppRunner(
            app, handle_signals=False, auto_decompress=False, handler_cancellation=True, access_log=None
        )
        await runner.setup()
        listener = listening()
        site = (FastSite if lane == "fast" else web.SockSite)(runner, listener, ssl_context=ssl_context)
        await site.start()
        port = listener.getsockname()[1]
        session = aiohttp.ClientSession(auto_decompress=True)
        ending.extend([session.close, runner.cleanup])
        running = Running(
            f"http{'s' if ssl_context else ''}://127.0.0.1:{port}",
            port,
            registry,
            service,
            engine,
            memory,
            controls,
            session,
            runner,
        )
        running.add("double", double(), options={"max_batch_size": 2_000_000})
        running.add("upper", upper())
        running.add("echo", echo())
        ending.append(lambda: _close(running, loader))
        return running

    yield begin
    for end in ending:
        await end()


async def _close(running, loader):
    for inferencer in running.inferencers.values():
        inferencer.gate.set()
    await running.service.close()
    await loader.close()
    running.engine.close()
    running.memory.close()


def listening():
    return socket.create_server(("127.0.0.1", 0))


@pytest.fixture(params=["fast", "aiohttp"])
async def server(start, request):
    """A server, by each way in."""
    return await start(request.param)


@pytest.fixture
async def fast(start):
    return await start("fast")
