from __future__ import annotations

import importlib.util
import json
import zipfile
from importlib.metadata import entry_points

import numpy as np
import onnx
import onnxruntime
import pytest

from locex.errors import InvalidConfiguration
from locex.schemas.base import validate
from locex.schemas.job import TrainConfig
from locex_keras_builder.artefact import write_architecture
from locex_keras_builder.kerases import import_keras, import_tensorflow, quiet

CONFIG = TrainConfig(batch_size=16, epochs=1)
SIZE = (8, 8, 3)


@pytest.fixture(params=["architecture", pytest.param("keras", marks=pytest.mark.slow), "tf_keras"])
def trained(request, tmp_path, make_session, kit):
    """A session that trained a CNN of images, from each kind of artefact."""
    data = kit.blobs(size=SIZE)
    if request.param == "architecture":
        path = tmp_path / "m.zip"
        config = {"input_size": list(SIZE), "num_classes": 3, "channels": [4], "batch_norm": True, "dropout": 0.5}
        write_architecture(path, architecture="cnn", config=config)
    else:
        keras = import_keras(request.param).module
        layers = keras.layers
        block = [layers.Conv2D(4, 3, padding="same", activation="relu"), layers.BatchNormalization()]
        ends = [layers.GlobalAveragePooling2D(), layers.Dropout(0.5), layers.Dense(3, "softmax")]
        path = tmp_path / "m.keras"
        with quiet():
            keras.Sequential([keras.Input(SIZE), *block, *ends]).save(path)
    session = make_session(path, train=data, test=data)
    session.fit(CONFIG, server_round=1)
    session.kind = request.param
    return session


def test_every_format_gives_the_model_s_outputs(trained, tmp_path, make_session, kit):
    data = kit.blobs(size=SIZE)
    expected = np.asarray(trained._model(data.x, training=False))
    paths = trained.export(tmp_path / "out", ["safetensors", "keras", "saved_model", "onnx", "tflite"])
    artefact = {"architecture": "model.zip", "keras": "model.keras", "tf_keras": "saved_model.zip"}[trained.kind]
    assert paths[0].name == artefact
    assert {path.name for path in paths} == {
        artefact,
        "model.keras",
        "saved_model.zip",
        "model.onnx",
        "model.tflite",
    }
    assert sorted(path.name for path in paths) == sorted(path.name for path in (tmp_path / "out").iterdir())
    again = make_session(paths[0], train=data, test=data)
    for name, array in trained.get_parameters().items():
        assert np.array_equal(array, again.get_parameters()[name])
    assert again.signature == trained.signature
    check_keras(tmp_path / "out" / "model.keras", make_session, data, trained)
    check_onnx(tmp_path / "out" / "model.onnx", data.x, expected)
    check_tflite(tmp_path / "out" / "model.tflite", data.x, expected)
    check_saved_model(tmp_path / "out" / "saved_model.zip", tmp_path / "unpacked", data.x, expected)


def check_keras(path, make_session, data, trained):
    again = make_session(path, train=data, test=data)
    assert again.evaluate(CONFIG) == trained.evaluate(CONFIG)


def check_onnx(path, x, expected):
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["input"]
    assert [one.name for one in session.get_outputs()] == ["output"]
    for examples in (1, 5):
        (given,) = session.run(None, {"input": x[:examples]})
        np.testing.assert_allclose(given, expected[:examples], atol=1e-4)


def check_tflite(path, x, expected):
    with quiet():
        interpreter = import_tensorflow().lite.Interpreter(str(path))
    place = interpreter.get_input_details()[0]["index"]
    for examples in (1, 5):
        interpreter.resize_tensor_input(place, (examples, *SIZE))
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, x[:examples])
        interpreter.invoke()
        given = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(given, expected[:examples], atol=1e-4)


def check_saved_model(path, folder, x, expected):
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    with quiet():
        loaded = import_tensorflow().saved_model.load(str(folder))
    (given,) = loaded.signatures["serving_default"](import_tensorflow().constant(x[:5])).values()
    np.testing.assert_allclose(given.numpy(), expected[:5], atol=1e-4)


def configured(*formats, **fields):
    (entry,) = entry_points(group="locex.builder", name="keras")
    return validate(entry.load()().locex_config_model(), {"export": {"formats": list(formats)}, **fields})


def test_unknown_formats_are_refused_before_any_training():
    with pytest.raises(InvalidConfiguration, match="'tflite'") as caught:
        configured("safetensors", "pt2")
    assert caught.value.errors[0]["path"] == "/export/formats/1"


def test_missing_libraries_are_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else find(name))
    with pytest.raises(InvalidConfiguration, match=r"onnx needs tf2onnx: pip install locex-keras-builder\[onnx\]"):
        configured("onnx")
    assert configured("safetensors").export.formats == ["safetensors"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"gradient_clip_norm": 0}, "/gradient_clip_norm"),
        ({"gradient_clip_value": -1}, "/gradient_clip_value"),
        ({"mixed_precision": "float8"}, "/mixed_precision"),
        ({"compile": "perhaps"}, "/compile"),
        ({"warmup_config": {}}, "/warmup_config"),
        ({"eval_func": "unheard"}, "/eval_func"),
        ({"eval_metrics": ["unheard"]}, "/eval_metrics/0"),
    ],
)
def test_wrong_options_are_refused(fields, path):
    with pytest.raises(InvalidConfiguration) as caught:
        configured("safetensors", **fields)
    assert caught.value.errors[0]["path"] == path


def test_options_may_be_strings():
    config = configured("safetensors", gradient_clip_norm="1.5", compile="True", mixed_precision="bfloat16")
    assert (config.gradient_clip_norm, config.compile, config.mixed_precision) == (1.5, True, "bfloat16")


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("cnn", {"input_size": [4, 4], "num_classes": 3, "channels": [4, 4, 4]}, "leave nothing"),
        ("mlp", {"input_size": [4]}, "num_classes or outputs"),
        ("mlp", {"input_size": [4], "num_classes": 3, "outputs": 2}, "must equal"),
        ("mlp", {"input_size": [0], "num_classes": 3}, "greater than 0"),
    ],
)
def test_wrong_architectures_are_refused(architecture, config, message, tmp_path):
    with pytest.raises(InvalidConfiguration, match=message):
        write_architecture(tmp_path / "m.zip", architecture=architecture, config=config)


@pytest.mark.parametrize("size", [[8, 8], [8, 8, 3]])
def test_images_may_have_one_channel_without_its_axis(size, tmp_path, make_session, kit):
    config = {"input_size": size, "num_classes": 2, "outputs": 1, "pool": 1, "channels": [2]}
    write_architecture(tmp_path / "m.zip", architecture="cnn", config=config)
    data = kit.blobs(size=tuple(size), classes=2, examples=8)
    session = make_session(tmp_path / "m.zip", loss="binary_crossentropy", train=data, test=data)
    assert session.signature.input.size == tuple(size)
    assert session.signature.output.size == (1,)


def test_the_public_sample_configuration_trains(tmp_path, make_session, kit):
    """The description's job: 32x32x3 images, ten classes, numbers as strings."""
    from locex.schemas.job import parse_job

    job, _ = parse_job(json.loads(SAMPLE_JOB))
    keras = import_keras("keras").module
    layers = keras.layers
    chain = [keras.Input((32, 32, 3)), layers.Conv2D(4, 3, strides=4, activation="relu"), layers.Flatten()]
    keras.Sequential([*chain, layers.Dense(10, "softmax")]).save(tmp_path / "md_keras.keras")
    data = kit.blobs(size=(32, 32, 3), classes=10, examples=128)
    fields = job.optimizer_config.fields()
    watched = job.scheduler_config.fields()
    session = make_session(
        tmp_path / "md_keras.keras",
        loss=job.eval_func,
        metrics=job.eval_metrics,
        train=data,
        test=data,
        config=job.config[0],
        optimizer=kit.optimizer(job.optimizer_config.optimizer, **fields),
        scheduler=kit.scheduler(job.scheduler_config.scheduler, **watched),
    )
    before = session.evaluate(job.config[0])
    for server_round in range(1, 6):
        told = session.fit(job.config[0], server_round=server_round)
    assert told.examples == 128
    after = session.evaluate(job.config[0])
    assert after.loss < before.loss
    assert after.metrics["accuracy"] > 0.5


SAMPLE_JOB = """{
  "server_address": "collector", "training_id": "1", "model_name": "md_keras", "model_version": "v1",
  "eval_metrics": ["accuracy"], "eval_func": "categorical_crossentropy", "num_classes": 10, "shape": [32, 32, 3],
  "config": [{"config_id": "min_effort", "batch_size": "64", "steps_per_epoch": "32", "epochs": "1",
              "learning_rate": "0.001"}],
  "optimizer_config": {"optimizer": "adam", "learning_rate": "0.005", "amsgrad": "True"},
  "scheduler_config": {"scheduler": "reducelronplateau", "factor": "0.5", "min_delta": "0.0003"}
}"""
