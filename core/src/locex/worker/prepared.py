"""Prepared data of former jobs, kept in ``PREPROCESSED_FOLDER`` under the state of the data and of the pipelines.

An entry is a folder with one file an array and a manifest, which holds what steps learnt too. It is built under
another name, made durable and renamed, so that it is whole or not there; of two jobs that build the same entry, the
later one takes the earlier one's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from locex.api import Array, Dataset
from locex.durable import sync
from locex.scratch import scratch
from locex.worker.rows import mapped, write

_VERSION = 2  # of the layout
_MANIFEST = "manifest.json"
_ARRAYS = ("train_x", "train_y", "test_x", "test_y")
_BUILDING = ".building-"


@dataclass(frozen=True, slots=True)
class Kept:
    """Prepared data, and what each step learnt from them (`locex.pipelines.saved.knowledge_of`)."""

    train: Dataset
    test: Dataset
    knowledge: list[dict[str, Any] | None]


class PreparedCache:
    """Entries by key; the least recently used go when all together take more than ``limit`` bytes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    def get(self, key: str) -> Kept | None:
        """Return an entry, its data mapped read-only; None where there is no such entry, or a damaged one."""
        entry = self._folder / key
        if not entry.is_dir():
            return None
        try:
            manifest = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
            arrays = {name: _open(entry / name, manifest["arrays"][name]) for name in _ARRAYS}
            knowledge = [*manifest["knowledge"]]
            os.utime(entry / _MANIFEST)
        except (OSError, ValueError, KeyError, TypeError):
            _remove(entry)
            return None
        return Kept(*_datasets(arrays), knowledge)

    @contextlib.contextmanager
    def building(self) -> Iterator[Path]:
        """Give a folder for a new entry, which is removed with the block unless `keep` made it one."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with scratch(self._folder, _BUILDING) as place:
            yield place

    def keep(self, key: str, place: Path, made: Kept) -> Kept:
        """Make ``place`` the entry of a key, and return it. Raise `OSError` where it cannot be written.

        Arrays of Python objects have no bytes to keep: they are returned as they are.
        """
        arrays = dict(zip(_ARRAYS, (made.train.x, made.train.y, made.test.x, made.test.y), strict=True))
        if any(array.dtype.hasobject for array in arrays.values()):
            return made
        for name, array in arrays.items():
            _store(array, place / name)
        for path in place.iterdir():
            if path.name not in _ARRAYS:
                path.unlink()
        described = {name: _described(array) for name, array in arrays.items()}
        manifest = {"version": _VERSION, "arrays": described, "knowledge": made.knowledge}
        (place / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        for path in (*place.iterdir(), place):
            sync(path)
        with contextlib.suppress(OSError):  # another job was earlier
            place.rename(self._folder / key)
            sync(self._folder)
        self._bound(key)
        return self.get(key) or made

    def _bound(self, newest: str) -> None:
        """Remove the least recently used entries beyond the limit; jobs that have them open keep their data."""
        used = []
        for entry in self._entries():
            with contextlib.suppress(OSError):
                used.append(((entry / _MANIFEST).stat().st_mtime_ns, _size(entry), entry))
        total = sum(size for _, size, _ in used)
        # An entry that alone is too large goes first: it must not cost all the others.
        for _, size, entry in sorted(used, key=lambda one: (one[1] <= self._limit, one)):
            if total <= self._limit:
                break
            if entry.name != newest or size > self._limit:
                _remove(entry)
                total -= size

    def _entries(self) -> list[Path]:
        return [entry for entry in self._folder.iterdir() if not entry.name.startswith(".")]


def key_of(content: Mapping[str, Any]) -> str:
    """Return the name of the entry for all that prepared data depends on."""
    return hashlib.sha256(json.dumps([_VERSION, content], sort_keys=True).encode()).hexdigest()


def state_of(folder: Path) -> str:
    """Return what changes with the files in a folder: names, sizes, times, inodes of all, at any depth."""
    digest = hashlib.sha256()
    seen: set[tuple[int, int]] = set()
    pending = [folder]
    while pending:
        with contextlib.suppress(OSError):  # gone meanwhile, or not to be read by a source either
            for path in sorted(pending.pop().iterdir()):
                status = path.stat() if path.exists() else path.lstat()
                if not stat.S_ISDIR(status.st_mode):
                    fields = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
                    digest.update(json.dumps([str(path), *fields]).encode())
                elif (status.st_dev, status.st_ino) not in seen:  # a link may lead back
                    seen.add((status.st_dev, status.st_ino))
                    pending.append(path)
    return digest.hexdigest()


def _open(path: Path, described: Mapping[str, Any]) -> Array:
    dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
    if path.stat().st_size != described["bytes"]:
        raise ValueError(f"{path} is torn")
    return mapped(path, dtype, shape)


def _datasets(arrays: Mapping[str, Array]) -> tuple[Dataset, Dataset]:
    return Dataset(arrays["train_x"], arrays["train_y"]), Dataset(arrays["test_x"], arrays["test_y"])


def _described(array: Array) -> dict[str, Any]:
    return {"dtype": array.dtype.str, "shape": list(array.shape), "bytes": array.nbytes}


def _store(array: Array, path: Path) -> None:
    """Put an array where its entry wants it; one that was written beside it is only renamed."""
    written = getattr(array, "filename", None)
    if written is not None and Path(written).parent == path.parent.resolve():
        Path(written).rename(path)
    else:
        write(path, array)


def _size(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.iterdir())


def _remove(entry: Path) -> None:
    shutil.rmtree(entry, ignore_errors=True)


def new_file(place: Path) -> IO[bytes]:
    """Open a file of an entry in the making."""
    return tempfile.NamedTemporaryFile(dir=place, delete=False)
