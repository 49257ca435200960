from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from locex.plugins.catalog import read_catalog
from locex_inference.inferencers.remote import Terms
from locex_inference.models.loading import Conditions, Loader
from locex_inference.models.registry import Registry

ACME = Path(__file__).parent / "acme"
STEPS = frozenset({"basic_norm", "argmax", "label_mapping", "softmax", "expansion", "standard_scale", "impute"})


@pytest.fixture
def acme(monkeypatch):
    """A third party's distribution, installed for this process and those that it starts."""
    monkeypatch.setenv("LOCEX_PLUGIN_FOLDER", str(ACME))
    monkeypatch.syspath_prepend(str(ACME))


@pytest.fixture
async def make_loader(acme, tmp_path):
    made = []

    def make(**conditions):
        terms = Terms(**{"backoff": 0.05, "backoff_max": 0.2, "call_timeout": 30, **conditions.pop("terms", {})})
        given = {"folder": tmp_path / "kept", "steps_in_process": STEPS, "terms": terms} | conditions
        made.append(Loader(Registry(), Conditions(catalog=lambda: read_catalog(folders=[ACME]), **given)))
        return made[-1]

    yield make
    for loader in made:
        await loader.close()


@pytest.fixture
async def loader(make_loader):
    return make_loader()


def linear(factor=2.0, width=2):
    """A model that multiplies by a number: y = x · (factor · I)."""
    weights = numpy_helper.from_array(np.eye(width, dtype=np.float32) * np.float32(factor), "w")
    return graph([helper.make_node("MatMul", ["x", "w"], ["y"])], ["batch", width], ["batch", width], weights)


def graph(nodes, takes, gives, *weights, of=TensorProto.FLOAT, to=None, domains=()):
    x = helper.make_tensor_value_info("x", of, takes)
    y = helper.make_tensor_value_info("y", of if to is None else to, gives)
    opsets = [helper.make_opsetid("", 21), *(helper.make_opsetid(domain, 1) for domain in domains)]
    made = helper.make_graph(nodes, "g", [x], [y], initializer=[*weights])
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


class Models:
    """Writes models into a folder."""

    linear = staticmethod(linear)
    graph = staticmethod(graph)
    node = staticmethod(helper.make_node)
    types = TensorProto
    tensor = staticmethod(numpy_helper.from_array)

    def __init__(self, folder):
        self.folder = folder

    def write(self, model, name="model.onnx"):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    def text(self, content, name="model.acme"):
        return self.write(content.encode(), name)

    def external(self, location, name="model.onnx"):
        """A model whose weights are said to lie at ``location``."""
        model = linear()
        (weights,) = model.graph.initializer
        raw = numpy_helper.to_array(weights).tobytes()
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(len(raw)))):
            entry = weights.external_data.add()
            entry.key, entry.value = key, value
        return self.write(model, name), raw


@pytest.fixture
def models(tmp_path):
    return Models(tmp_path / "models")
