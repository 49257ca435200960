"""PyTorch's models as they are served: what they take and give, and that they answer as PyTorch does."""

from __future__ import annotations

from importlib.metadata import entry_points

import numpy as np
import pytest
import torch

from locex.api import InferencerContext, ModelArtefact, TensorInfo
from locex.errors import InvalidConfiguration, InvalidModel
from locex.schemas.base import validate
from locex.schemas.model import ModelMetadata
from locex_torch_builder.artefact import write_architecture

METADATA = ModelMetadata.model_validate({"model_name": "m", "model_version": "1", "meta": {"library": "pytorch"}})


def served(path, *, allow_programs=True, **fields):
    (entry,) = entry_points(group="locex.inferencer", name="torch")
    plugin = entry.load()()
    config = validate(plugin.locex_config_model(), fields)
    context = InferencerContext(ModelArtefact(path, METADATA, ""), 1, allow_programs, architecture)
    return plugin.locex_create_inferencer(config, context)


def architecture(name, fields, seed):
    (entry,) = entry_points(group="locex.architecture", name=f"pytorch.{name}")
    plugin = entry.load()()
    return plugin.locex_create_architecture(validate(plugin.locex_config_model(), dict(fields)), seed or 0)


class Two(torch.nn.Module):
    """Two inputs, two outputs, and dropout, which must not act."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x, y):
        return self.dropout(self.linear(x)), (x * y).sum(1)


def program(module, path, *examples):
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in examples)
    torch.export.save(torch.export.export(module.eval(), examples, dynamic_shapes=shapes), path)
    return path


def test_a_named_architecture_answers(tmp_path):
    path = tmp_path / "model.zip"
    write_architecture(path, architecture="mlp", config={"input_size": [4], "hidden": [8], "outputs": 3}, seed=5)
    model = served(path)
    assert model.inputs == (TensorInfo("input", "FP32", (-1, 4)),)
    assert model.outputs == (TensorInfo("output", "FP32", (-1, 3)),)
    x = np.random.default_rng(0).random((5, 4), np.float32)
    made = model.run({"input": x}, ["output"])["output"]
    assert made.shape == (5, 3)
    assert np.array_equal(made, model.run({"input": x}, ["output"])["output"])


def test_a_program_of_several_inputs_and_outputs_answers_as_pytorch_does(tmp_path):
    module = Two()
    path = program(module, tmp_path / "model.pt2", torch.zeros(2, 4), torch.zeros(2, 4))
    model = served(path, outputs=["scores", "dot"])
    assert model.inputs == (TensorInfo("x", "FP32", (-1, 4)), TensorInfo("y", "FP32", (-1, 4)))
    assert model.outputs == (TensorInfo("scores", "FP32", (-1, 3)), TensorInfo("dot", "FP32", (-1,)))
    x = np.random.default_rng(0).random((5, 4), np.float32)
    x.flags.writeable = False  # as shared memory is
    made = model.run({"x": x, "y": x}, ["dot", "scores"])
    with torch.no_grad():
        scores, dot = module(torch.tensor(x), torch.tensor(x))
    assert np.allclose(made["scores"], scores, atol=1e-6)
    assert np.allclose(made["dot"], dot, atol=1e-6)
    assert list(model.run({"x": x, "y": x}, ["dot"])) == ["dot"]


def test_a_program_of_one_batch_size_is_served_as_it_is(tmp_path):
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(4, 2).eval(), (torch.zeros(1, 4),)), path)
    model = served(path)
    assert (model.inputs[0].shape, model.outputs[0].shape) == ((1, 4), (1, 2))


def test_bfloat16_models_take_and_give_float32(tmp_path):
    module = torch.nn.Linear(4, 2).to(torch.bfloat16)
    path = program(module, tmp_path / "model.pt2", torch.zeros(2, 4, dtype=torch.bfloat16))
    model = served(path)
    assert (model.inputs[0].datatype, model.outputs[0].datatype) == ("FP32", "FP32")
    assert model.run({model.inputs[0].name: np.ones((1, 4), np.float32)}, ["output"])["output"].dtype == np.float32


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript_needs_its_inputs_said(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.script(torch.nn.Linear(4, 2)).save(path)
    with pytest.raises(InvalidConfiguration, match=r"a TorchScript program does not tell what it takes"):
        served(path)
    with pytest.raises(InvalidModel, match=r"the model does not take input \[2, 5\]"):
        served(path, inputs=[{"shape": [-1, 5]}])
    with pytest.raises(InvalidModel, match=r"is a program \(TorchScript\), which this site refuses"):
        served(path, allow_programs=False)
    model = served(path, inputs=[{"name": "x", "shape": [-1, 4]}])
    assert model.outputs == (TensorInfo("output", "FP32", (-1, 2)),)
    assert model.run({"x": np.ones((3, 4), np.float32)}, ["output"])["output"].shape == (3, 2)


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "model.zip"
    path.write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(InvalidModel, match=r"corrupt zip archive"):
        served(path)
    with pytest.raises(InvalidConfiguration, match=r"2 outputs are named, the model gives 1"):
        served(program(torch.nn.Linear(4, 2), tmp_path / "m.pt2", torch.zeros(2, 4)), outputs=["a", "b"])
