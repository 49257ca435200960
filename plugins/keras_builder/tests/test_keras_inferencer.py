"""Keras' models and SavedModels as they are served."""

from __future__ import annotations

import zipfile
from importlib.metadata import entry_points

import numpy as np
import pytest

from locex.api import InferencerContext, ModelArtefact, TensorInfo
from locex.errors import InvalidConfiguration, InvalidModel
from locex.schemas.base import validate
from locex.schemas.model import ModelMetadata
from locex_keras_builder.artefact import write_architecture

METADATA = ModelMetadata.model_validate({"model_name": "m", "model_version": "1", "meta": {"library": "keras"}})
X = np.random.default_rng(0).random((5, 4), np.float32)


def served(path, *, allow_programs=True, **fields):
    (entry,) = entry_points(group="locex.inferencer", name="keras")
    plugin = entry.load()()
    config = validate(plugin.locex_config_model(), fields)
    context = InferencerContext(ModelArtefact(path, METADATA, ""), 1, allow_programs, architecture)
    return plugin.locex_create_inferencer(config, context)


def architecture(name, fields, seed):
    (entry,) = entry_points(group="locex.architecture", name=f"keras.{name}")
    plugin = entry.load()()
    return plugin.locex_create_architecture(validate(plugin.locex_config_model(), dict(fields)), seed or 0)


@pytest.fixture(scope="module")
def model():
    import keras

    layers = [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
    return keras.Sequential(layers)


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("compiled", [False, True])
def test_a_keras_file_answers_as_keras_does(tmp_path, model, compiled):
    model.save(tmp_path / "model.keras")
    inferencer = served(tmp_path / "model.keras", compile=compiled)
    assert inferencer.inputs == (TensorInfo("input", "FP32", (-1, 4)),)
    assert inferencer.outputs == (TensorInfo("output", "FP32", (-1, 3)),)
    made = inferencer.run({"input": X}, ["output"])["output"]
    assert np.allclose(made, model(X, training=False), atol=1e-5)
    assert inferencer.run({"input": X[:2]}, ["output"])["output"].shape == (2, 3)
    inferencer.close()


def test_a_named_architecture_answers(tmp_path):
    path = tmp_path / "model.zip"
    write_architecture(path, architecture="mlp", config={"input_size": [4], "hidden": [8], "outputs": 3}, seed=5)
    assert served(path).run({"input": X}, ["output"])["output"].shape == (5, 3)


def test_a_saved_model_that_cannot_be_trained_is_served_by_its_signature(tmp_path, model):
    model.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    path = zipped(tmp_path / "saved", tmp_path / "model.zip")
    inferencer = served(path)
    ((name, datatype, shape),) = [(info.name, info.datatype, info.shape) for info in inferencer.inputs]
    assert (datatype, shape) == ("FP32", (-1, 4))
    (output,) = inferencer.outputs
    assert output.shape == (-1, 3)
    made = inferencer.run({name: X}, [output.name])[output.name]
    assert np.allclose(made, model(X, training=False), atol=1e-5)
    with pytest.raises(InvalidConfiguration, match=r"no signature 'predict'; it has: serving_default|has no signature"):
        served(path, signature="predict")
    with pytest.raises(InvalidModel, match=r"is a program \(SavedModel\), which this site refuses"):
        served(path, allow_programs=False)


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(InvalidModel, match=r"an HDF5 file"):
        served(tmp_path / "model.keras")
