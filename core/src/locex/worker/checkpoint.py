"""What a worker keeps after each round, so that a killed one goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from locex.api import Array, Parameters, TrainingSession
from locex.artefacts.nested import with_arrays, without_arrays
from locex.durable import sync

_CURRENT = "current"
_ARRAYS = "progress.safetensors"


class Checkpoint:
    """Generations of a run's state in one folder; the file ``current`` names the one that is whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, session: TrainingSession, global_parameters: Parameters, progress: dict[str, Any]) -> None:
        """Write a new generation, then make it the current one, then drop the older.

        ``progress`` is JSON with a number ``round``, and may hold NumPy arrays.
        """
        arrays: dict[str, Array] = {}
        told = without_arrays(progress, arrays)
        generation = f"{progress['round']}-{os.urandom(4).hex()}"
        place = self._folder / generation
        place.mkdir()
        session.save_state(place)
        save_file(global_parameters, place / "global.safetensors")
        (place / "progress.json").write_text(json.dumps(told), encoding="utf-8")
        if arrays:
            save_file(arrays, place / _ARRAYS)
        for path in (*place.rglob("*"), place):
            sync(path)
        part = self._folder / "current.part"
        part.write_text(generation, encoding="utf-8")
        sync(part)
        part.replace(self._folder / _CURRENT)
        sync(self._folder)  # before the older generation goes, the name of the new one must be on the disk
        for older in self._folder.iterdir():
            if older.is_dir() and older.name != generation:
                shutil.rmtree(older, ignore_errors=True)

    def load(self, session: TrainingSession) -> tuple[Parameters, dict[str, Any]] | None:
        """Restore the session and return the last global parameters and the progress; None if there is nothing.

        A generation that cannot be read (the disk lost it) counts as nothing: rounds then begin with fresh state.
        """
        try:
            place = self._folder / (self._folder / _CURRENT).read_text(encoding="utf-8")
            progress = json.loads((place / "progress.json").read_text(encoding="utf-8"))
            arrays = load_file(place / _ARRAYS) if (place / _ARRAYS).exists() else {}
            progress = with_arrays(progress, arrays)
            parameters: Parameters = load_file(place / "global.safetensors")
            session.load_state(place)
        except (OSError, ValueError, KeyError, SafetensorError):
            return None
        return parameters, progress
