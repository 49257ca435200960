"""What a training leaves: each format, from each kind of artefact, computes what the framework's own module does."""

from __future__ import annotations

import importlib.util
import warnings
from importlib.metadata import entry_points

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from locex.errors import InvalidConfiguration
from locex.schemas.base import validate
from locex.schemas.job import TrainConfig
from locex_torch_builder.artefact import write_architecture

CONFIG = TrainConfig(batch_size=16, epochs=2)
CNN = {"input_size": [8, 8], "num_classes": 3, "channels": [4], "batch_norm": True, "dropout": 0.5}
KINDS = ("architecture", "pt2", "torchscript")


def write(kind, module, path):
    """Write a module as an artefact of one kind."""
    if kind == "architecture":
        write_architecture(path, architecture="cnn", config=CNN, seed=3)
    elif kind == "pt2":
        shapes = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(module, (torch.zeros(2, 8, 8),), dynamic_shapes=shapes), path)
    else:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            torch.jit.script(module).save(str(path))
    return path


class Trained:
    def __init__(self, kind, folder, make_session, kit):
        self.module = kit.architecture("cnn", CNN, 3).train()
        self.data, self.warnings = kit.blobs(size=(8, 8)), []
        self.make_session = make_session
        path = write(kind, self.module, folder / ("m.pt2" if kind == "pt2" else "m.zip"))
        self.session = self.load(path)
        self.session.fit(CONFIG, server_round=1)

    def load(self, path, **options):
        return self.make_session(path, train=self.data, test=self.data, warn=self.warnings.append, **options)

    def outputs(self, examples):
        """Return inputs and what the original module makes of them with the weights of now."""
        parameters = self.session.get_parameters()
        self.module.load_state_dict({name: torch.from_numpy(array) for name, array in parameters.items()})
        x = torch.from_numpy(self.data.x[:examples])
        with torch.no_grad():
            return x, self.module.eval()(x).numpy()

    def export(self, folder, *formats):
        return self.session.export(folder, formats)


@pytest.fixture(params=KINDS)
def trained(request, tmp_path, make_session, kit):
    return Trained(request.param, tmp_path, make_session, kit)


def run_onnx(path, x):
    session = onnxruntime.InferenceSession(path)
    assert [value.name for value in session.get_inputs()] == ["input"]
    assert [value.name for value in session.get_outputs()] == ["output"]
    return session.run(None, {"input": x.numpy()})[0]


def run_torchscript(path, x):
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning), torch.no_grad():
        return torch.jit.load(path).eval()(x).numpy()


def run_pt2(path, x):
    with torch.no_grad():
        return torch.export.load(path).module()(x).numpy()


RUNNERS = {
    "onnx": ("model.onnx", run_onnx),
    "torchscript": ("model.pt", run_torchscript),
    "pt2": ("model.pt2", run_pt2),
}


def test_the_artefact_is_loaded_again(trained, tmp_path):
    (path,) = trained.export(tmp_path / "out", "safetensors")
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    again = trained.load(path)
    assert list(again.get_parameters()) == list(trained.session.get_parameters())
    for name, array in trained.session.get_parameters().items():
        assert np.array_equal(array, again.get_parameters()[name])
    assert again.evaluate(CONFIG) == trained.session.evaluate(CONFIG)
    assert again.signature == trained.session.signature
    assert trained.warnings == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind in KINDS
        for name in RUNNERS
        if (kind, name) not in {("pt2", "pt2"), ("torchscript", "pt2")}
    ],
)
def test_every_format_gives_the_modules_outputs_for_any_batch(kind, name, tmp_path, make_session, kit):
    trained = Trained(kind, tmp_path, make_session, kit)
    file, run = RUNNERS[name]
    trained.export(tmp_path / "out", "safetensors", name)
    assert trained.warnings == []
    for examples in (1, 5, 33):
        x, expected = trained.outputs(examples)
        np.testing.assert_allclose(run(str(tmp_path / "out" / file), x), expected, atol=1e-4)


def test_onnx_is_one_valid_file(trained, tmp_path):
    artefact, path = trained.export(tmp_path / "out", "onnx")
    assert {entry.name for entry in path.parent.iterdir()} == {artefact.name, "model.onnx"}
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.initializer) >= 4


def test_what_was_exported_is_trained_on(tmp_path, make_session, kit):
    """A .pt2 beside the artefact is for use, as ONNX is: in evaluation mode. It trains so, and says so."""
    trained = Trained("architecture", tmp_path, make_session, kit)
    _, path = trained.export(tmp_path / "out", "pt2")
    again = trained.load(path)
    assert again.evaluate(CONFIG).loss == pytest.approx(trained.session.evaluate(CONFIG).loss, abs=1e-5)
    assert "evaluation mode" in trained.warnings[0]
    before = again.get_parameters()["output.weight"]
    again.fit(CONFIG, server_round=1)
    assert not np.array_equal(before, again.get_parameters()["output.weight"])


def test_a_format_that_an_artefact_cannot_become_is_refused_before_the_training(tmp_path, make_session, kit):
    module = kit.architecture("cnn", CNN, 3)
    path = write("torchscript", module, tmp_path / "m.pt")
    data = kit.blobs(size=(8, 8))
    options = {"export": {"formats": ["safetensors", "pt2"]}}
    with pytest.raises(InvalidConfiguration, match="a TorchScript program cannot be exported as pt2") as caught:
        make_session(path, train=data, test=data, options=options)
    assert caught.value.errors[0]["path"] == "/export/formats/1"


def test_what_pytorch_cannot_export_is_a_warning_and_the_model_is_kept(tmp_path, make_session, kit, monkeypatch):
    trained = Trained("architecture", tmp_path, make_session, kit)

    def refuse(*_, **__):
        raise RuntimeError("no such operator\nand a long story")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    (path,) = trained.export(tmp_path / "out", "onnx")
    assert path.name == "model.zip"
    assert trained.warnings == ["the model was not exported as onnx: PyTorch says: no such operator"]


def configured(*formats):
    (entry,) = entry_points(group="locex.builder", name="pytorch")
    return validate(entry.load()().locex_config_model(), {"export": {"formats": list(formats)}})


def test_unknown_formats_are_refused_before_any_training():
    with pytest.raises(InvalidConfiguration, match="'safetensors', 'pt2', 'torchscript' or 'onnx'") as caught:
        configured("safetensors", "tflite")
    assert caught.value.errors[0]["path"] == "/export/formats/1"


def test_missing_libraries_are_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(InvalidConfiguration, match=r"onnx needs onnxscript: pip install locex-torch-builder\[onnx\]"):
        configured("onnx")
    assert configured("safetensors").export.formats == ["safetensors"]
