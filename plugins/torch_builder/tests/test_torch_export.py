from __future__ import annotations

import importlib.util
import warnings
from importlib.metadata import entry_points

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from locex.errors import InvalidConfiguration
from locex.schemas.base import validate
from locex.schemas.job import TrainConfig
from locex_torch_builder.artefact import write_architecture

CONFIG = TrainConfig(batch_size=16, epochs=2)


@pytest.fixture
def trained(tmp_path, make_session, kit):
    write_architecture(
        tmp_path / "m.zip",
        architecture="cnn",
        config={"input_size": [8, 8], "num_classes": 3, "channels": [4], "batch_norm": True, "dropout": 0.5},
    )
    data = kit.blobs(size=(8, 8))
    session = make_session(tmp_path / "m.zip", train=data, test=data)
    session.fit(CONFIG, server_round=1)
    return session


def test_the_artefact_is_loaded_again(trained, tmp_path, make_session, kit):
    (path,) = trained.export(tmp_path / "out", ["safetensors"])
    data = kit.blobs(size=(8, 8))
    again = make_session(path, train=data, test=data)
    for name, array in trained.get_parameters().items():
        assert np.array_equal(array, again.get_parameters()[name])
    assert again.evaluate(CONFIG) == trained.evaluate(CONFIG)
    assert again.signature == trained.signature


def test_onnx_gives_the_model_s_outputs_for_any_batch(trained, tmp_path, kit):
    artefact, path = trained.export(tmp_path / "out", ["onnx"])
    assert sorted(entry.name for entry in path.parent.iterdir()) == sorted([artefact.name, path.name])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["input"]
    assert len(model.graph.initializer) >= 4
    check_outputs(model, trained, kit.blobs(size=(8, 8)).x)


def check_outputs(model, session, x):
    with torch.no_grad():
        expected = session._model.eval()(torch.from_numpy(x)).numpy()
    for examples in (1, 5):
        (given,) = ReferenceEvaluator(model).run(None, {"input": x[:examples]})
        np.testing.assert_allclose(given, expected[:examples], atol=1e-4)


def test_torchscript_becomes_onnx_too(tmp_path, make_session, kit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(torch.nn.Linear(8, 3)).save(str(tmp_path / "m.pt"))
    session = make_session(tmp_path / "m.pt")
    _, path = session.export(tmp_path / "out", ["safetensors", "onnx"])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    check_outputs(model, session, kit.blobs().x)


def configured(*formats):
    (entry,) = entry_points(group="locex.builder", name="pytorch")
    return validate(entry.load()().locex_config_model(), {"export": {"formats": list(formats)}})


def test_unknown_formats_are_refused_before_any_training():
    with pytest.raises(InvalidConfiguration, match="'safetensors' or 'onnx'") as caught:
        configured("safetensors", "tflite")
    assert caught.value.errors[0]["path"] == "/export/formats/1"


def test_missing_libraries_are_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(InvalidConfiguration, match=r"onnx needs onnxscript: pip install locex-torch-builder\[onnx\]"):
        configured("onnx")
    assert configured("safetensors").export.formats == ["safetensors"]
