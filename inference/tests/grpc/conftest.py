"""A gRPC server on loopback, in a thread with an event loop of its own, over the real engine and registry."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import uvloop
from onnx import TensorProto, helper, numpy_helper

from locex.api import TensorInfo
from locex.errors import InvalidModel
from locex_inference.engine.engine import Engine
from locex_inference.errors import InvalidInference, UnknownServed
from locex_inference.grpc import server
from locex_inference.grpc.parts import Parts
from locex_inference.models.options import ModelOptions
from locex_inference.models.registry import Registry
from locex_inference.models.version import ModelVersion
from locex_inference.serving import ServedModel, Statistics
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


def of_onnx(content: bytes) -> Plain:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 -- onnxruntime's classes are its extension's
        raise InvalidModel(f"onnxruntime cannot load it: {error}", remedy="export it again") from None
    names = {"tensor(float)": "FP32", "tensor(string)": "BYTES"}
    inputs, outputs = (
        tuple(
            TensorInfo(each.name, names[each.type], tuple(size if isinstance(size, int) else -1 for size in each.shape))
            for each in tensors
        )
        for tensors in (session.get_inputs(), session.get_outputs())
    )
    return Plain(
        inputs, outputs, lambda given: dict(zip([o.name for o in outputs], session.run(None, given), strict=True))
    )


def linear(factor: float = 1.0) -> bytes:
    """Return an ONNX model: x (n, 4) times the weights is y (n, 3)."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 4), ("y", 3)))
    graph = helper.make_graph([node], "linear", [x], [y], [numpy_helper.from_array(factor * WEIGHTS, "w")])
    return _model(graph)


def two() -> bytes:
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    tensors = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2])
        for name in ("a", "b", "sum", "difference")
    }
    return _model(helper.make_graph(nodes, "two", list(tensors.values())[:2], list(tensors.values())[2:]))


def _model(graph) -> bytes:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


class Models:
    """Serving over the engine and the registry."""

    def __init__(self):
        self.registry, self.engine = Registry(), None
        self.gate = Gate()
        self.configs = []
        self.is_ready = True

    def start(self):
        self.engine = Engine(self.registry)
        self.publish("linear", "1", of_onnx(linear()), platform="onnx")
        self.publish("two", "1", of_onnx(two()), platform="onnx")
        for datatype in DTYPES:
            tensors = tuple(TensorInfo(name, datatype, (-1, -1)) for name in ("x", "y"))
            self.publish(f"echo-{datatype}", "1", Plain(tensors[:1], tensors[1:], lambda given: {"y": given["x"]}))
        tensors = tuple(TensorInfo(name, "FP32", (-1, 1)) for name in ("x", "y"))
        self.publish("slow", "1", Plain(tensors[:1], tensors[1:], self.gate), concurrency=1, queue_limit=1)
        self.publish("broken", "1", Plain(tensors[:1], tensors[1:], lambda given: 1 / 0))

    def publish(self, name, version, inferencer, platform="python", **options):
        self.registry.publish(
            ModelVersion(
                name,
                version,
                "",
                platform,
                inferencer.inputs,
                inferencer.outputs,
                inferencer,
                ModelOptions(micro_batching="off", **options),
                Statistics(name, version),
            )
        )

    def live(self):
        return True

    def ready(self):
        return self.is_ready

    def model_ready(self, model, version=""):
        return self.registry.choose(model, version) is not None

    def metadata(self, model, version=""):
        found = self.registry.choose(model, version)
        versions = tuple(each.version for each in self.registry.versions(model))
        return ServedModel(model, versions, found.platform, found.inputs, found.outputs)

    def configuration(self, model, version=""):
        found = self.registry.choose(model, version)
        return {
            "name": model,
            "platform": found.platform,
            "backend": found.platform,
            "max_batch_size": 8,
            "unknown_to_the_schema": True,
            "input": [
                {"name": each.name, "data_type": "TYPE_" + each.datatype.replace("BYTES", "STRING"), "dims": [-1]}
                for each in found.inputs
            ],
        }

    def statistics(self, model="", version=""):
        if model:
            return [self.registry.choose(model, version).statistics]
        return [each.statistics for name in self.registry.models() for each in self.registry.versions(name)]

    def index(self, *, ready_only=False):
        return [entry for entry in self.registry.index() if not ready_only or entry.state == "READY"]

    async def load(self, model, config, files):
        if model not in self.registry.models() and not files:
            raise UnknownServed(f"there is no model {model!r}")
        self.configs.append((model, config))
        if config and "refuse" in config:
            raise InvalidInference("refused")
        for path, content in files.items():
            self.publish(model, path.partition("/")[0], of_onnx(content), platform="onnx")

    async def unload(self, model):
        await self.registry.unload(model)

    def infer_now(self, request):
        return self.engine.infer_now(request)

    async def infer(self, request):
        return await self.engine.infer(request)


class Running:
    """A server in its thread; `call` runs a function in its loop."""

    def __init__(self, models, **options):
        self.models, self.memory = models, SharedMemory(enabled=options.pop("shared_memory", True))
        self._options = options
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.parts = Parts(models, self.memory, **self._options.pop("parts", {}))
        self.server = self.call(self._start())
        self.address = f"127.0.0.1:{self.server.port}"

    async def _start(self):
        self.models.start()
        return await server.start(self.parts, **({"host": "127.0.0.1", "port": 0} | self._options))

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def stop(self):
        self.models.gate.open.set()
        self.call(self.server.stop(1))
        self.memory.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self.models.engine.close()
        self._loop.close()


@contextmanager
def running(**options):
    found = Running(Models(), **options)
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def service():
    with running() as found:
        yield found


@pytest.fixture
def start_service() -> Callable:
    """Return a function that gives a context of a server with options of its own."""
    return running


@pytest.fixture(scope="session")
def weights():
    return WEIGHTS


@pytest.fixture(scope="session")
def onnx_models():
    return SimpleNamespace(linear=linear, two=two)
