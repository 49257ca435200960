"""What a model's configuration names, checked before any object is made of it; for both Kerases."""

from __future__ import annotations

import builtins
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from locex.artefacts.archive import read_entry
from locex.errors import InvalidModel

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 200
_RUN_CODE = {"Lambda", "__lambda__", "lambda"}
_LOAD_FILES = {"TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
_OPERATIONS = {"TFOpLambda", "SlicingOpLambda"}
_OTHER_OPERATIONS = {"TensorFlowOpLayer", "ClassMethod", "InstanceMethod", "InstanceProperty"}
_PURE = ("__operators__.", "math.", "nn.")
_PARTS = (
    "activations|constraints|dtype_policies|engine|initializers|layers|losses|metrics|mixed_precision|models|ops|"
    "optimizers|quantizers|random|regularizers"
)
_CLASSES = re.compile(rf"builtins|(tf_)?keras((\.src)?\.({_PARTS})(\.\w+)*)?")
_FUNCTIONS = re.compile(rf"builtins|(tf_)?keras(\.({_PARTS}))?")


def read_config(archive: zipfile.ZipFile, name: str) -> Any:
    """Return the JSON of an archive's entry; raise `InvalidModel` where it is none, or too large."""
    if archive.getinfo(name).file_size > MAX_BYTES:
        raise _refused(f"{name} is larger than {MAX_BYTES} bytes", "upload a model with fewer layers")
    try:
        return json.loads(read_entry(archive, name))
    except (ValueError, RecursionError) as error:
        raise _refused(f"{name} is not JSON: {error}", "save the model again, and upload it") from error


def require_harmless(config: Any, name: str) -> None:
    """Raise `InvalidModel` for layers that hold code or name files, and for what is no part of a model of Keras."""
    for part in _objects(config, name):
        kind = str(part.get("class_name"))
        # the older form of Lambda names its kind beside the byte code
        if kind in _RUN_CODE or any(str(key).endswith("function_type") and part[key] == "lambda" for key in part):
            raise _refused(
                f"{name} holds a Lambda layer, whose code would run when it is loaded",
                "replace it by layers or keras.ops, and save the model again",
            )
        if kind in _LOAD_FILES:
            raise _refused(f"{name} holds a {kind}, which loads another program", "save a model of Keras' own layers")
        if "class_name" in part:
            _require_part_of_keras(part, kind, name)
        if isinstance(part.get("vocabulary"), str):
            raise _refused(f"{name} reads a vocabulary from a file of this machine", "save the words with the model")


def _require_part_of_keras(part: dict[str, Any], kind: str, name: str) -> None:
    function = str(part.get("config")) if kind == "function" else None
    module, named = part.get("module"), function or kind
    known = module is None or (_CLASSES if function is None else _FUNCTIONS).fullmatch(str(module))
    # a name with dots reaches into other modules; where Keras has no function of a name, tf_keras takes Python's
    if not known or "." in named or (module == "builtins" and function is not None and hasattr(builtins, function)):
        raise _refused(
            f"{name} names {named} of {module!r}, which is no part of Keras' models", "use Keras' own layers"
        )


def require_no_program(config: Any, name: str) -> None:
    """Raise `InvalidModel` for TensorFlow's operations as layers (tf_keras) that are not plain calculation."""
    for part in _objects(config, name):
        kind, fields = str(part.get("class_name")), part.get("config")
        operation = str(fields.get("function")) if isinstance(fields, dict) else ""
        if kind in _OTHER_OPERATIONS or (kind in _OPERATIONS and not operation.startswith(_PURE)):
            raise _refused(
                f"{name} calls TensorFlow's {operation or kind!r}, which can do more than calculate",
                "use Keras' own layers (Reshape, Concatenate, …), or operators, tf.math and tf.nn",
            )


def without_compiling(config: Any) -> Any:
    """Return a configuration without the optimizers, losses and metrics of its models."""
    if isinstance(config, dict):
        return {key: without_compiling(value) for key, value in config.items() if key != "compile_config"}
    return [without_compiling(value) for value in config] if isinstance(config, list) else config


def _objects(config: Any, name: str) -> Iterator[dict[str, Any]]:
    pending = [(config, 0)]
    while pending:
        part, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise _refused(f"{name} is nested deeper than {MAX_DEPTH}", "upload a model with fewer levels")
        if isinstance(part, dict):
            yield part
            pending += [(value, depth + 1) for value in part.values()]
        elif isinstance(part, list):
            pending += [(value, depth + 1) for value in part]


def _refused(message: str, remedy: str) -> InvalidModel:
    return InvalidModel(message, remedy=remedy)
