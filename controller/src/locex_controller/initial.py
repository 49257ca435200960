"""The weights that a model's artefact brings."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from locex.errors import InvalidModel

WEIGHTS = "weights.safetensors"


def extract_weights(artefact: Path, target: Path, *, limit: int) -> bool:
    """Copy ``weights.safetensors`` of a zip to ``target``; False where the artefact has none.

    Raise `InvalidModel` for a broken zip or for weights of more than ``limit`` bytes.
    """
    if not zipfile.is_zipfile(artefact):
        return False
    remedy = "upload the artefact again, as a new version"
    try:
        with zipfile.ZipFile(artefact) as archive:
            if WEIGHTS not in archive.namelist():
                return False
            if archive.getinfo(WEIGHTS).file_size > limit:
                raise InvalidModel(f"{WEIGHTS} has more than {limit} bytes", remedy=remedy)
            with archive.open(WEIGHTS) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise InvalidModel(f"the artefact's {WEIGHTS} cannot be read: {error}", remedy=remedy) from None
    return True
