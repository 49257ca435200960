"""Model artefacts of Keras: known by their content, loaded, and written anew for an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from locex.api import LoadContext
from locex.artefacts.architecture import write_initial
from locex.artefacts.archive import open_archive
from locex.artefacts.formats import wrong_format
from locex.artefacts.manifest import MANIFEST, WEIGHTS
from locex_keras_builder.architecture import load_architecture, weights_of
from locex_keras_builder.keras_file import is_keras_file, load_keras_file, nested_keras_file
from locex_keras_builder.kerases import import_keras
from locex_keras_builder.model import LoadedModel
from locex_keras_builder.saved_model import is_saved_model, load_saved_model

ACCEPTED = (
    f"a .keras file (model.save('model.keras')), a zipped SavedModel of Keras, or a zip with {MANIFEST} and {WEIGHTS}"
)


def load_model(context: LoadContext) -> LoadedModel:
    """Return the artefact's model, or raise `InvalidModel`; pickles are refused unread."""
    with context.artefact.path.open("rb") as file:
        if file.read(2) != b"PK":
            raise wrong_format(file, "keras", ACCEPTED)
        with open_archive(file) as archive:
            names = archive.namelist()
            if MANIFEST in names:
                return load_architecture(archive, context)
            if is_keras_file(names):
                return load_keras_file(file)
            if is_saved_model(names):
                return load_saved_model(archive, context)
            nested = nested_keras_file(archive, context.artefact.path.stat().st_size)
        if nested is None:
            raise wrong_format(file, "keras", ACCEPTED)
        return load_keras_file(nested)


def write_architecture(path: Path, *, architecture: str, config: Mapping[str, Any], seed: int = 0) -> None:
    """Write an artefact with weights drawn from ``seed``: equal arguments give equal bytes.

    Raise `UnknownPlugin` or `InvalidConfiguration` where the architecture or its fields are wrong.
    """
    import_keras("keras")
    write_initial(path, library="keras", architecture=architecture, config=config, seed=seed, weights_of=weights_of)
