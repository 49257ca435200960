"""A gRPC server on loopback, in a thread with an event loop of its own, over the real engine and registry."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import uvloop
from onnx import TensorProto, helper, numpy_helper

from locex.api import TensorInfo
from locex_inference.engine.engine import Engine
from locex_inference.grpc import server
from locex_inference.grpc.parts import Parts
from locex_inference.models.loading import Conditions, Loader
from locex_inference.models.options import ModelOptions
from locex_inference.models.registry import Registry
from locex_inference.models.serving_folder import ModelRepository
from locex_inference.models.version import ModelVersion
from locex_inference.service import Service
from locex_inference.serving import Statistics
from locex_inference.shared_memory import SharedMemory
from locex_inference.tensors import DTYPES

WEIGHTS = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)


class Plain:
    """An inferencer of a function."""

    def __init__(self, inputs, outputs, function):
        self.inputs, self.outputs, self._function = inputs, outputs, function

    def run(self, inputs, outputs):
        found = self._function(inputs)
        return {name: found[name] for name in outputs}

    def close(self):
        pass


class Gate:
    """A model that answers when it is let, and counts how often it ran."""

    def __init__(self):
        self.open, self.entered, self.runs = threading.Event(), threading.Semaphore(0), 0

    def __call__(self, inputs):
        self.runs += 1
        self.entered.release()
        assert self.open.wait(30)
        return {"y": inputs["x"]}


LINEAR = Plain(
    (TensorInfo("x", "FP32", (-1, 4)),),
    (TensorInfo("y", "FP32", (-1, 3)),),
    lambda given: {"y": given["x"] @ WEIGHTS},
)
TWO = Plain(
    tuple(TensorInfo(name, "FP32", (-1, 2)) for name in ("a", "b")),
    tuple(TensorInfo(name, "FP32", (-1, 2)) for name in ("sum", "difference")),
    lambda given: {"sum": given["a"] + given["b"], "difference": given["a"] - given["b"]},
)


def linear(factor: float = 1.0) -> bytes:
    """Return an ONNX model: x (n, 4) times the weights is y (n, 3)."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 4), ("y", 3)))
    graph = helper.make_graph([node], "linear", [x], [y], [numpy_helper.from_array(factor * WEIGHTS, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


class Models(Service):
    """The service itself, with a few models that are functions; it notes what is loaded."""

    def __init__(self, folder):
        self.registry, self.gate = Registry(), Gate()
        self.engine = Engine(self.registry)
        self._loader = Loader(self.registry, Conditions(folder=folder))
        super().__init__(self.registry, self.engine, ModelRepository(self._loader))
        self.loaded, self.is_ready = [], True

    async def start(self):
        await self.begin()
        self._publish("linear", LINEAR)
        self._publish("two", TWO)
        for datatype in DTYPES:
            tensors = tuple(TensorInfo(name, datatype, (-1, -1)) for name in ("x", "y"))
            self._publish(f"echo-{datatype}", Plain(tensors[:1], tensors[1:], lambda given: {"y": given["x"]}))
        tensors = tuple(TensorInfo(name, "FP32", (-1, 1)) for name in ("x", "y"))
        self._publish("slow", Plain(tensors[:1], tensors[1:], self.gate), concurrency=1, queue_limit=1)
        self._publish("broken", Plain(tensors[:1], tensors[1:], lambda given: 1 / 0))

    async def stop(self):
        await self.close()
        await self._loader.close()
        self.engine.close()

    def ready(self):
        return self.is_ready and super().ready()

    async def load(self, model, config, files):
        self.loaded.append((model, config))
        if files or model not in self.registry.models():
            await super().load(model, config, files)

    def _publish(self, name, inferencer, **options):
        self.registry.publish(
            ModelVersion(
                name,
                "1",
                "",
                "python",
                inferencer.inputs,
                inferencer.outputs,
                inferencer,
                ModelOptions(micro_batching="off", **options),
                Statistics(name, "1"),
            )
        )


class Running:
    """A server in its thread; `call` runs a function in its loop."""

    def __init__(self, folder, **options):
        self.memory = SharedMemory(enabled=options.pop("shared_memory", True))
        self._options = options
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.server = self.call(self._start(folder))
        except BaseException:
            self._end()
            raise
        self.address = f"127.0.0.1:{self.server.port}"

    async def _start(self, folder):
        self.models = Models(folder)
        self.parts = Parts(self.models, self.memory, **self._options.pop("parts", {}))
        await self.models.start()
        return await server.start(self.parts, **({"host": "127.0.0.1", "port": 0} | self._options))

    def send(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, coroutine):
        return self.send(coroutine).result(30)

    def stop(self):
        self.models.gate.open.set()
        self.call(self.server.stop(1))
        self._end()

    def _end(self):
        self.call(self.models.stop())
        self.memory.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


@contextmanager
def running(folder, **options):
    found = Running(folder, **options)
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running(tmp_path_factory.mktemp("models")) as found:
        yield found


@pytest.fixture
def start_service(tmp_path) -> Callable:
    """Return a function that gives a context of a server with options of its own."""
    return partial(running, tmp_path / "models")


@pytest.fixture(scope="session")
def weights():
    return WEIGHTS


@pytest.fixture(scope="session")
def linear_onnx():
    return linear
