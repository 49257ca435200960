"""Conversions of a source's files, kept in the site's cache folder where they are larger than memory should hold.

An entry is a folder ``<what>/<state>`` of four ``.npy`` files: *what* is a hash of the source's configuration,
*state* one of its files' sizes and times. It is written beside its place and renamed, so that two jobs at once do no
harm. An entry of another state is removed when a new one is there; so are the least recently used of all when they
take more than the site allows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from locex.api import Array, Dataset, SiteContext
from locex_transforms.sources.scratch import discard, root_of, scratch

Pair = tuple[Dataset, Dataset]
NAMES = ("x_train", "y_train", "x_test", "y_test")


class Conversion:
    """One configuration's entry."""

    def __init__(self, what: object, files: Iterable[Path], context: SiteContext) -> None:
        """Take JSON that decides the outcome, and the files that are read."""
        self._root = root_of(context)
        self._limit = context.cache_bytes
        self._what = _digest(what)
        self._state = state_of(files)

    def find(self) -> Pair | None:
        """Return an earlier outcome, memory-mapped, or None; a damaged one is removed."""
        return None if self._root is None else _found(self._root, self._root / self._what / self._state)

    def make(self, build: Callable[[Path], Pair]) -> Pair:
        """Return what ``build(folder)`` gives; the entry is kept if it wrote files into the folder.

        Without a cache folder the files have no names any more when this returns; their space is free again when
        their arrays are gone.
        """
        with scratch(self._root) as working:
            train, test = build(working)
            arrays = dict(zip(NAMES, (train.x, train.y, test.x, test.y), strict=True))
            if self._root is None or not any(isinstance(array, np.memmap) for array in arrays.values()):
                return train, test
            return self._keep(self._root, working, arrays)

    def _keep(self, root: Path, working: Path, arrays: dict[str, Array]) -> Pair:
        for name, array in arrays.items():
            if not (working / f"{name}.npy").exists():
                np.save(working / f"{name}.npy", array, allow_pickle=False)
        for path in working.iterdir():
            if path.stem not in NAMES:
                path.unlink()
        mapped = _mapped(working)
        if self._limit is not None and _size(working) > self._limit:
            return mapped
        entry = root / self._what / self._state
        try:
            entry.parent.mkdir(exist_ok=True)
            working.rename(entry)
        except OSError:  # another job was first; ours lives on as long as it is mapped
            return mapped
        for other in entry.parent.iterdir():
            if other != entry:
                discard(root, other)
        if self._limit is not None:
            _bound(root, self._limit, entry)
        return _found(root, entry) or mapped


def _found(root: Path, entry: Path) -> Pair | None:
    try:
        pair = _mapped(entry)
        os.utime(entry)
    except (OSError, ValueError):  # none, or removed while it was opened, or torn
        discard(root, entry)
        return None
    return pair


def _bound(root: Path, limit: int, newest: Path) -> None:
    """Remove the least recently used entries beyond ``limit`` bytes."""
    used = []
    for entry in root.glob("[!.]*/*"):
        with contextlib.suppress(OSError):  # another process removes too
            used.append((entry.stat().st_mtime_ns, _size(entry), entry))
    total = sum(size for _, size, _ in used)
    for _, size, entry in sorted(used):
        if total <= limit:
            break
        if entry != newest:
            discard(root, entry)
            total -= size
            with contextlib.suppress(OSError):  # it holds another state
                entry.parent.rmdir()


def _mapped(folder: Path) -> Pair:
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in NAMES]
    return Dataset(*arrays[:2]), Dataset(*arrays[2:])


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def state_of(files: Iterable[Path]) -> str:
    """Return a text that changes when the names, sizes or times of files do."""
    return _digest([[str(file), (status := file.stat()).st_size, status.st_mtime_ns] for file in files])


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]
