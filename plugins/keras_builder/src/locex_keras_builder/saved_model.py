"""TensorFlow's SavedModels that Keras wrote, loaded for training through tf_keras; and written again.

A SavedModel is a program of TensorFlow's operations, which runs when it is called: admit it only from sources that
are trusted. What is checked here is that it holds no Python code and allocates no more weights than it brings.
"""

from __future__ import annotations

import math
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from locex.api import LoadContext
from locex.artefacts.archive import read_entry
from locex.artefacts.manifest import MANIFEST, WEIGHTS
from locex.artefacts.programs import require_programs
from locex.errors import InvalidModel
from locex_keras_builder.configs import require_harmless, without_compiling
from locex_keras_builder.dry import declared_elements, require_backed
from locex_keras_builder.kerases import Keras, import_keras, import_tensorflow, quiet
from locex_keras_builder.model import LoadedModel, loading, signed

tf = import_tensorflow()

PROGRAM = "saved_model.pb"
METADATA = "keras_metadata.pb"
_CHECKPOINT = "variables/variables"


def is_saved_model(names: list[str]) -> bool:
    """Return whether an archive of these entries holds a SavedModel, in any folder."""
    return any(PurePosixPath(name).name == PROGRAM for name in names)


def load_saved_model(archive: zipfile.ZipFile, context: LoadContext) -> LoadedModel:
    """Return the trainable model of the one SavedModel in an archive; raise `InvalidModel`."""
    require_programs(context, "SavedModel", f"a .keras file, or a zip with {MANIFEST} and {WEIGHTS}")
    folders = [PurePosixPath(name).parent for name in archive.namelist() if PurePosixPath(name).name == PROGRAM]
    if len(folders) != 1:
        raise InvalidModel(f"the archive holds {len(folders)} SavedModels", remedy="upload one SavedModel per archive")
    if str(folders[0] / METADATA) not in archive.namelist():
        raise InvalidModel(
            f"the SavedModel has no {METADATA}: it can be run, but not trained",
            remedy="save the model as .keras, or with tf_keras' model.save(folder)",
        )
    keras = import_keras("tf_keras")
    remedy = "save it again with model.save(folder)"
    with loading("tf_keras cannot load the SavedModel", remedy), tempfile.TemporaryDirectory() as temporary:
        unpack(archive, folders[0], Path(temporary))
        return signed(_load(Path(temporary), keras), keras)


def unpack(archive: zipfile.ZipFile, root: PurePosixPath, folder: Path) -> None:
    """Write what lies below ``root`` in a checked archive into a folder."""
    # the names have been checked: plain, relative, without '..' and links
    for name in archive.namelist():
        path = PurePosixPath(name)
        if name.endswith("/") or not path.is_relative_to(root):
            continue
        place = folder / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(read_entry(archive, name))


def _load(folder: Path, keras: Keras) -> Any:
    from tf_keras.src.saving import serialization_lib

    with serialization_lib.SafeModeScope(safe_mode=True):
        require_backed(_largest(folder, keras), _stored(folder))
        model = keras.module.models.load_model(folder, compile=False)
    if not isinstance(model, keras.module.Model):
        raise InvalidModel("the SavedModel is no model of Keras", remedy="save it with model.save(folder)")
    return model


def _stored(folder: Path) -> int:
    """Return the number of weights in the checkpoint, whose declared sizes must be those of its files."""
    size = sum(path.stat().st_size for path in (folder / "variables").glob("variables.data-*"))
    reader = tf.train.load_checkpoint(str(folder / _CHECKPOINT))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    numbers = {name: math.prod(shape) for name, shape in shapes.items() if dtypes[name] != tf.string}
    if sum(count * dtypes[name].size for name, count in numbers.items()) > size:
        raise InvalidModel(
            "the SavedModel's checkpoint declares more than its files hold", remedy="upload the SavedModel again"
        )
    return sum(numbers.values())


def _largest(folder: Path, keras: Keras) -> int:
    """Return how many weights the largest part declares that would be made from its configuration."""
    from tf_keras.protobuf import saved_metadata_pb2
    from tf_keras.src.saving.legacy.saved_model import json_utils

    metadata = saved_metadata_pb2.SavedMetadata()
    metadata.ParseFromString((folder / METADATA).read_bytes())
    largest = 0
    for node in metadata.nodes:
        content = json_utils.decode(node.metadata)
        content.pop("training_config", None)  # a job brings its own
        require_harmless(content, METADATA)
        if node.identifier != "_tf_keras_metric":
            largest = max(largest, _declared(content, keras))
    return largest


def _declared(content: dict[str, Any], keras: Keras) -> int:
    known = getattr(keras.module.layers, content["class_name"], None) or getattr(
        keras.module, content["class_name"], None
    )
    if known is None or not isinstance(content.get("config"), dict):
        return 0  # a class of the author's own: made from the program, which the checkpoint bounds

    def make() -> Any:
        part = known.from_config(without_compiling(content["config"]))
        shape = content.get("build_input_shape")
        if not part.built and shape is not None:
            part.build(shape)
        return part

    return declared_elements(keras, make)


def write_saved_model(model: Any, keras: Keras, path: Path) -> None:
    """Write a zip with the SavedModel: of tf_keras one that can be trained again, of Keras 3 one to be run."""
    with tempfile.TemporaryDirectory() as temporary, quiet():
        folder = Path(temporary) / "saved_model"
        if keras.name == "tf_keras":
            keras.module.models.save_model(model, folder, save_format="tf", include_optimizer=False)
        else:
            model.export(folder, format="tf_saved_model", verbose=False)
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(folder))
