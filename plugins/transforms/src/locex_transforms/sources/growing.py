"""Arrays that grow batch by batch: in memory up to a limit, then in a memory-mapped ``.npy`` file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from locex.api import Array
from locex.errors import DataUnavailable
from locex_transforms.sources.scratch import unwritable


class Growing:
    """One array whose number of examples is not known yet; all batches have one shape and type."""

    def __init__(self, path: Path, limit: int) -> None:
        """``path``: the file, written past ``limit`` bytes."""
        self._path, self._limit = path, limit
        self._parts: list[Array] = []
        self._file: IO[bytes] | None = None
        self._dtype = np.dtype(np.float32)
        self._shape: tuple[int, ...] = ()
        self._rows = self._bytes = 0

    def append(self, batch: Array) -> None:
        """Add examples."""
        self._rows += len(batch)
        self._bytes += batch.nbytes
        self._parts.append(batch)
        if self._file is not None or self._bytes > self._limit:
            self._write()

    def finish(self) -> Array:
        """Return all of it: an array in memory, or the file, mapped read-only."""
        if self._file is None:
            return self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        with self._file as file:
            file.seek(0)
            self._header(file)
        mapped: Array = np.load(self._path, mmap_mode="r", allow_pickle=False)
        return mapped

    def close(self) -> None:
        """Give up."""
        if self._file is not None:
            self._file.close()

    def _write(self) -> None:
        if self._file is None:
            first = self._parts[0]
            self._dtype, self._shape = first.dtype, first.shape[1:]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
            self._header(self._file)
        for part in self._parts:
            np.ascontiguousarray(part, self._dtype).tofile(self._file)
        self._parts = []

    def _header(self, file: IO[bytes]) -> None:
        # NumPy pads headers so that the first axis may grow to 21 digits in place.
        shape = (self._rows, *self._shape)
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        )


def grown(batches: Iterable[tuple[Array, Array]], folder: Path, part: str, limit: int) -> tuple[Array, Array]:
    """Return ``x`` and ``y`` of all batches; raise `DataUnavailable` where the disk is full or there is no batch."""
    pair = tuple(Growing(folder / f"{side}_{part}.npy", limit) for side in ("x", "y"))
    count = 0
    try:
        for batch in batches:
            count += 1
            for growing, array in zip(pair, batch, strict=True):
                growing.append(array)
        if not count:
            raise DataUnavailable("there are no examples", remedy="add examples to the files")
        return pair[0].finish(), pair[1].finish()
    except OSError as error:
        raise unwritable(folder.parent, error) from error
    finally:
        for growing in pair:
            growing.close()


def picked(x: Array, y: Array, mask: Array, rows: int) -> Iterator[tuple[Array, Array]]:
    """Return the examples of ``mask``, copied some ``rows`` at a time."""
    for begin in range(0, len(mask), rows):
        part = slice(begin, begin + rows)
        yield x[part][mask[part]], y[part][mask[part]]
