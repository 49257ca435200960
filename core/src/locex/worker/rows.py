"""Arrays that arrive in pieces: gathered in memory while they are small, else in a file that is then mapped."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from locex.api import Array

_IN_MEMORY = 128 * 2**20  # bytes of one array; as much again while its pieces are joined
_UNSIZED = "USO"  # NumPy's kinds of text and objects: they have no one size, so pieces can only be joined in memory


class Rows:
    """One array in the making; a large one goes to the file that ``open_file`` opens."""

    def __init__(self, open_file: Callable[[], IO[bytes]]) -> None:
        self._open = open_file
        self._pieces: list[Array] = []
        self._held = 0
        self._file: IO[bytes] | None = None
        self._length = 0
        self._like: Array | None = None

    def append(self, piece: Array) -> None:
        """Add examples; raise `OSError` where the disk is full, `ValueError` for a piece of another size or type."""
        like = self._like if self._like is not None else piece[:0]
        if piece.shape[1:] != like.shape[1:] or (piece.dtype != like.dtype and piece.dtype.kind not in _UNSIZED):
            raise ValueError(
                f"{piece.dtype} of size {list(piece.shape[1:])} after {like.dtype} of size {list(like.shape[1:])}"
            )
        self._like = like
        self._length += len(piece)
        if self._file is not None:
            _write(self._file, piece)
            return
        self._pieces.append(piece)
        self._held += piece.nbytes
        if self._held > _IN_MEMORY and like.dtype.kind not in _UNSIZED:
            self._file = self._open()
            while self._pieces:
                _write(self._file, self._pieces.pop(0))

    def close(self) -> None:
        """Close the file; what was mapped stays."""
        if self._file is not None:
            self._file.close()

    def finish(self) -> Array:
        """Return the whole array, read-only where it lies in a file."""
        assert self._like is not None
        if self._file is None:
            return self._pieces[0] if len(self._pieces) == 1 else np.concatenate(self._pieces)
        self._file.flush()
        return mapped(self._file, self._like.dtype, (self._length, *self._like.shape[1:]))


def write(path: Path, array: Array) -> None:
    """Write an array's bytes to a new file."""
    step = rows_within(array, 2**24)
    with path.open("xb") as file:
        for begin in range(0, len(array), step):
            _write(file, array[begin : begin + step])


def mapped(file: IO[bytes] | Path, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Array:
    """Return the array in a file, mapped read-only; an empty array cannot be mapped and is made."""
    if not math.prod(shape):
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, "r", shape=shape)


def rows_within(array: Array, size: int) -> int:
    """Return how many of an array's examples take ``size`` bytes; at least one."""
    row = int(array.itemsize * math.prod(array.shape[1:]))
    return max(1, size // max(row, 1))


def _write(file: IO[bytes], piece: Array) -> None:
    file.write(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)
