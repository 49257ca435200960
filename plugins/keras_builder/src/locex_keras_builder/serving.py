"""Keras' models and SavedModels as inferencers: one graph of TensorFlow's, called with arrays."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from locex.api import InferencerContext, TensorInfo
from locex.artefacts.archive import open_archive
from locex.artefacts.datatypes import datatype_named
from locex.artefacts.manifest import MANIFEST
from locex.artefacts.programs import require_programs
from locex.errors import InvalidConfiguration, InvalidModel
from locex_keras_builder.artefact import load_model
from locex_keras_builder.inferencer import KerasInferencerConfig
from locex_keras_builder.kerases import import_tensorflow, limit_threads
from locex_keras_builder.model import loading
from locex_keras_builder.saved_model import PROGRAM, is_saved_model, unpack

if TYPE_CHECKING:
    from locex.api import Array

tf = import_tensorflow()


class GraphInferencer:
    """A function of TensorFlow's that takes and gives tensors by name."""

    def __init__(
        self, function: Callable[..., Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any], owner: Any
    ) -> None:
        """Take TensorFlow's specs by the function's own names; variables live as long as ``owner``."""
        self._function = function
        self._owner = owner
        self._dtypes = {name: spec.dtype for name, spec in inputs.items()}
        self.inputs = tuple(_info(name, spec) for name, spec in inputs.items())
        self.outputs = tuple(_info(name, spec) for name, spec in outputs.items())

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs of these names."""
        made = self._function(**{name: tf.constant(inputs[name], dtype) for name, dtype in self._dtypes.items()})
        return {name: made[name].numpy() for name in outputs}

    def close(self) -> None:
        """Let go of the function."""
        del self._function, self._owner


def load_inferencer(config: KerasInferencerConfig, context: InferencerContext) -> GraphInferencer:
    """Return an artefact's model, loaded as safely as for training."""
    limit_threads(context.threads)
    path = context.artefact.path
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        with path.open("rb") as file, open_archive(file) as archive:
            names = archive.namelist()
            if MANIFEST not in names and is_saved_model(names):
                return _saved(archive, config, context)
    model = load_model(context).model

    @tf.function(jit_compile=config.compile)  # type: ignore[untyped-decorator]
    def call(input: Any) -> dict[str, Any]:  # noqa: A002 -- the name that callers use
        return {"output": model(input, training=False)}

    (spec,) = (tf.TensorSpec(one.shape, one.dtype, name="input") for one in model.inputs)
    with loading("TensorFlow cannot trace the model", "save it again with model.save('model.keras')"):
        function = call.get_concrete_function(input=spec)
    return GraphInferencer(function, {"input": spec}, function.structured_outputs, model)


def _saved(archive: Any, config: KerasInferencerConfig, context: InferencerContext) -> GraphInferencer:
    """Return a SavedModel's signature as an inferencer; it need not be one of Keras, nor one that can be trained."""
    require_programs(context, "SavedModel", "a .keras file, or an ONNX model")
    folders = [PurePosixPath(name).parent for name in archive.namelist() if PurePosixPath(name).name == PROGRAM]
    if len(folders) != 1:
        raise InvalidModel(f"the archive holds {len(folders)} SavedModels", remedy="serve one SavedModel per archive")
    remedy = "save it again with model.export(folder)"
    with loading("TensorFlow cannot load the SavedModel", remedy), tempfile.TemporaryDirectory() as temporary:
        unpack(archive, folders[0], Path(temporary))
        loaded = tf.saved_model.load(temporary)
    if config.signature not in loaded.signatures:
        known = ", ".join(loaded.signatures) or "none"
        raise InvalidConfiguration(
            f"the SavedModel has no signature {config.signature!r}; it has: {known}", remedy="name one of them"
        )
    function = loaded.signatures[config.signature]
    return GraphInferencer(function, function.structured_input_signature[1], function.structured_outputs, loaded)


def _info(name: str, spec: Any) -> TensorInfo:
    if spec.shape.rank is None:
        raise InvalidModel(f"the model's {name!r} has no rank", remedy="export the model with the ranks of its tensors")
    return TensorInfo(
        name,
        datatype_named(spec.dtype.name, name),
        tuple(-1 if size is None else int(size) for size in spec.shape.as_list()),
    )
