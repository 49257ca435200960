"""A trained model as files: an artefact that the builder loads again, and formats for inference."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from locex.artefacts.architecture import write_trained
from locex_keras_builder.architecture import weights_of
from locex_keras_builder.kerases import import_tensorflow, quiet
from locex_keras_builder.model import LoadedModel
from locex_keras_builder.saved_model import write_saved_model

tf = import_tensorflow()

OPSET = 18


def export_model(loaded: LoadedModel, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write the artefact, then the further formats."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        artefact = _write_artefact(loaded, folder)
        paths = {artefact.name: artefact}
        for name, file, write in _FORMATS:
            path = folder / file
            if name in formats and path.name not in paths:
                write(loaded, path)
                paths[path.name] = path
    return list(paths.values())


def _write_artefact(loaded: LoadedModel, folder: Path) -> Path:
    if loaded.manifest is not None:
        return write_trained(folder, loaded.manifest, weights_of(loaded.model))
    if loaded.keras.name == "keras":
        _write_keras(loaded, folder / "model.keras")
        return folder / "model.keras"
    _write_saved_model(loaded, folder / "saved_model.zip")
    return folder / "saved_model.zip"


def _write_keras(loaded: LoadedModel, path: Path) -> None:
    # a copy: the model itself would take its optimizer along
    copy = loaded.model.__class__.from_config(loaded.model.get_config())
    copy.set_weights(loaded.model.get_weights())
    copy.save(path)


def _write_saved_model(loaded: LoadedModel, path: Path) -> None:
    write_saved_model(loaded.model, loaded.keras, path)


def _write_onnx(loaded: LoadedModel, path: Path) -> None:
    import tf2onnx

    function, signature = _inference(loaded)
    tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET, output_path=str(path))


def _write_tflite(loaded: LoadedModel, path: Path) -> None:
    function, _ = _inference(loaded)
    with tempfile.TemporaryDirectory() as folder:
        # by way of a file: converted directly, weights of Keras 3 come out as NaN
        module = tf.Module()
        module.infer = function
        module.weights = [one.value if loaded.keras.name == "keras" else one for one in loaded.model.variables]
        tf.saved_model.save(module, folder, signatures=function)
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def _inference(loaded: LoadedModel) -> tuple[Any, list[Any]]:
    """Return the model as a function of ``input`` that gives ``output``, for any number of examples."""
    tensor = loaded.model.inputs[0]
    signature = [tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name="input")]

    def infer(batch: Any) -> Mapping[str, Any]:
        return {"output": tf.identity(loaded.model(batch, training=False), name="output")}

    return tf.function(infer, input_signature=signature, autograph=False), signature


_FORMATS: list[tuple[str, str, Callable[[LoadedModel, Path], None]]] = [
    ("keras", "model.keras", _write_keras),
    ("saved_model", "saved_model.zip", _write_saved_model),
    ("onnx", "model.onnx", _write_onnx),
    ("tflite", "model.tflite", _write_tflite),
]
