"""Keras' own file, ``.keras``, of either Keras: checked, counted, then loaded in safe mode."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from pathlib import Path
from typing import IO

from locex.artefacts.archive import open_archive, read_entry
from locex.errors import InvalidModel
from locex_keras_builder.configs import read_config, require_harmless, require_no_program, without_compiling
from locex_keras_builder.dry import declared_elements, require_backed
from locex_keras_builder.hdf5 import count_elements
from locex_keras_builder.kerases import import_keras
from locex_keras_builder.model import LoadedModel, loading, signed

CONFIG, METADATA = "config.json", "metadata.json"
_REMEDY = "save it again with model.save('model.keras')"


def is_keras_file(names: list[str]) -> bool:
    """Return whether an archive of these entries is a ``.keras`` file."""
    return {CONFIG, METADATA} <= set(names)


def nested_keras_file(archive: zipfile.ZipFile, size: int) -> io.BytesIO | None:
    """Return the one ``.keras`` file in an archive of ``size`` bytes, if it holds one, with its own bounds checked."""
    nested = [name for name in archive.namelist() if name.endswith(".keras")]
    if len(nested) != 1:
        return None
    content = io.BytesIO(read_entry(archive, nested[0]))
    with open_archive(content, packed=size) as inner:
        return content if is_keras_file(inner.namelist()) else None


def load_keras_file(file: IO[bytes]) -> LoadedModel:
    """Return the model of an uploaded file or of `nested_keras_file`; raise `InvalidModel`."""
    with open_archive(file) as archive:
        return _load(archive, file)


def _load(archive: zipfile.ZipFile, file: IO[bytes]) -> LoadedModel:
    config = read_config(archive, CONFIG)
    if isinstance(config, dict):
        config.pop("compile_config", None)  # Keras leaves it out likewise
    require_harmless(config, CONFIG)
    require_no_program(config, CONFIG)
    stored = _stored(archive)
    metadata = read_config(archive, METADATA)
    # tf_keras counts its versions on from Keras 2
    older = isinstance(metadata, dict) and str(metadata.get("keras_version")).startswith("2.")
    keras = import_keras("tf_keras" if older else "keras")
    saving = keras.module.saving
    with loading("Keras cannot load the model", _REMEDY), tempfile.TemporaryDirectory() as folder:
        plain = without_compiling(config)
        require_backed(declared_elements(keras, lambda: saving.deserialize_keras_object(plain, safe_mode=True)), stored)
        path = Path(folder) / "model.keras"  # Keras goes by the name
        if isinstance(file, io.BytesIO):
            path.write_bytes(file.getvalue())
        else:
            path.symlink_to(os.path.realpath(file.name))
        return signed(saving.load_model(path, compile=False, safe_mode=True), keras)


def _stored(archive: zipfile.ZipFile) -> int:
    """Return the number of weights in the file; raise `InvalidModel` where they are not HDF5."""
    names = archive.namelist()
    weights = [name for name in names if name.endswith(".h5")]
    if not weights:
        raise InvalidModel("the .keras file holds no HDF5 weights", remedy=_REMEDY)
    if foreign := [name for name in names if name.endswith((".npz", ".npy", ".pkl", ".pickle"))]:
        raise InvalidModel(f"the .keras file holds {foreign[0]!r}, which is no part of one", remedy=_REMEDY)
    return sum(count_elements(io.BytesIO(read_entry(archive, name)), name) for name in weights)
