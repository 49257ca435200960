"""Models of real frameworks, from their own files to what the loader serves."""

from __future__ import annotations

import numpy as np
import pytest

from locex.errors import InvalidModel
from locex_inference.models.options import ModelOptions

X = np.random.default_rng(0).random((5, 4), np.float32)
IMAGES = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
OPTIONS = ModelOptions(warmup=[1, 4])


async def answered(version, x):
    name, outputs = version.inputs[0].name, [info.name for info in version.outputs]
    run = version.inferencer.run if version.in_process else version.inferencer.arun
    made = run({name: x}, outputs)
    return (made if version.in_process else await made)[outputs[0]]


def mlp():
    import torch

    return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()


def cnn():
    import torch

    layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 3)]
    return torch.nn.Sequential(*layers).eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "make", "x"),
    [("onnx", mlp, X), ("onnx", cnn, IMAGES), ("pt2", cnn, IMAGES), ("torchscript", mlp, X)],
)
async def test_pytorchs_models_answer_as_pytorch_does(loader, tmp_path, make, x, kind):
    import torch

    module, example, path = make(), torch.tensor(x[:2]), tmp_path / f"model.{kind}"
    fields = {}
    if kind == "onnx":
        axes = {"input": {0: "batch"}, "output": {0: "batch"}}
        names = {"input_names": ["input"], "output_names": ["output"]}
        torch.onnx.export(module, (example,), path, dynamo=False, dynamic_axes=axes, **names)
    elif kind == "pt2":
        shapes = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(module, (example,), dynamic_shapes=shapes), path)
    else:
        torch.jit.script(module).save(path)
        fields = {"inputs": [{"shape": [-1, *x.shape[1:]]}]}
    version = await loader.load("m", "1", path, OPTIONS.model_copy(update={"fields": fields}))
    assert version.in_process == (kind == "onnx")
    assert version.platform == ("onnxruntime_onnx" if kind == "onnx" else "pytorch")
    with torch.no_grad():
        assert np.allclose(await answered(version, x), module(torch.tensor(x)), atol=1e-5)


@pytest.fixture(scope="module")
def keras_model():
    import keras

    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])


@pytest.mark.slow
async def test_a_keras_model_answers_as_keras_does(loader, tmp_path, keras_model):
    keras_model.save(tmp_path / "model.keras")
    version = await loader.load("m", "1", tmp_path / "model.keras", OPTIONS)
    assert (version.in_process, version.platform) == (False, "keras")
    assert np.allclose(await answered(version, X), keras_model(X), atol=1e-5)


async def test_a_tflite_model_answers_for_any_number_of_examples(loader, tmp_path, keras_model):
    pytest.importorskip("ai_edge_litert")
    import tensorflow as tf

    path = tmp_path / "model.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(keras_model).convert())
    version = await loader.load("m", "1", path, OPTIONS)
    assert (version.in_process, version.platform) == (False, "litert_tflite")
    assert [info.shape for info in (*version.inputs, *version.outputs)] == [(-1, 4), (-1, 3)]
    for x in (X, X[:1], X):
        assert np.allclose(await answered(version, x), keras_model(x), atol=1e-5)
    path = tmp_path / "cut.tflite"
    path.write_bytes((tmp_path / "model.tflite").read_bytes()[:600])
    with pytest.raises(InvalidModel, match=r"LiteRT cannot load the model"):
        await loader.load("m", "2", path, OPTIONS)
