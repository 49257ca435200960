"""Arrays between two processes: anonymous shared memory, whose owner alone decides how large it is.

The owner seals it against shrinking: a child that made it smaller would end the owner with SIGBUS.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from locex_inference.errors import InvalidInference, ModelFailed
from locex_inference.tensors import datatype_of, from_raw, to_raw

if TYPE_CHECKING:
    from locex.api import Array

_ALIGN = 64
_LEAST = 2**16
_MIB = 2**20


class SharedBuffer:
    """Memory that grows on demand, up to ``limit`` bytes, and is used again for every call."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.fd = os.memfd_create("locex-arrays", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self.size = 0
        self._map: mmap.mmap | None = None

    def reserve(self, size: int, what: str) -> None:
        """Make room for so many bytes; raise `InvalidInference` beyond the limit."""
        if size <= self.size:
            return
        if size > self._limit:
            raise InvalidInference(
                f"{what} take {size / _MIB:,.0f} MiB, a model's process is handed up to {self._limit / _MIB:,.0f} MiB",
                remedy="send smaller batches, or raise the limit (LOCEX_ARRAYS_MB)",
            )
        self.size = min(self._limit, max(_LEAST, 1 << (size - 1).bit_length()))
        os.ftruncate(self.fd, self.size)
        self._map = mmap.mmap(self.fd, self.size)

    def write(self, arrays: Mapping[str, Array], what: str) -> list[dict[str, Any]]:
        """Copy arrays in; return what `read` takes in the other process."""
        described, raw, size = _laid_out(arrays)
        self.reserve(size, what)
        _copy(self._map, described, raw)
        return described

    def read(self, described: Iterable[Mapping[str, Any]]) -> dict[str, Array]:
        """Return copies of what the other process wrote; raise `ModelFailed` where its words make no sense."""
        try:
            return {str(one["name"]): _array(self._map, self.size, one).copy() for one in described}
        except (KeyError, TypeError, InvalidInference) as error:
            raise ModelFailed(f"the model's process answered with arrays that are none: {error}") from None

    def close(self) -> None:
        """Give the memory back."""
        self._map = None
        os.close(self.fd)


class BorrowedBuffer:
    """The other end of a `SharedBuffer`, by the file descriptor that was handed over."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = 0
        self._map: mmap.mmap | None = None

    def read(self, described: Iterable[Mapping[str, Any]], size: int) -> dict[str, Array]:
        """Return read-only views, which hold until the next call; ``size`` is the buffer's."""
        self._grow(size)
        return {str(one["name"]): _array(self._map, size, one) for one in described}

    def write(self, arrays: Mapping[str, Array], size: int) -> tuple[list[dict[str, Any]], int]:
        """Copy arrays in, where they fit into ``size`` bytes; return what the owner reads, and the bytes needed."""
        described, raw, needed = _laid_out(arrays)
        if needed <= size:
            self._grow(size)
            _copy(self._map, described, raw)
        return described, needed

    def _grow(self, size: int) -> None:
        if size > self._size:
            self._map = mmap.mmap(self._fd, size)
            self._size = size


def _laid_out(arrays: Mapping[str, Array]) -> tuple[list[dict[str, Any]], list[bytes | memoryview], int]:
    described, raws, position = [], [], 0
    for name, array in arrays.items():
        raw = to_raw(array)
        one = {"name": name, "datatype": datatype_of(array), "shape": [*array.shape], "at": position, "bytes": len(raw)}
        described.append(one)
        raws.append(raw)
        position += -(-len(raw) // _ALIGN) * _ALIGN
    return described, raws, position


def _copy(target: mmap.mmap | None, described: Sequence[Mapping[str, Any]], raws: Sequence[bytes | memoryview]) -> None:
    for one, raw in zip(described, raws, strict=True):
        if raw and target is not None:
            target[one["at"] : one["at"] + len(raw)] = raw


def _array(source: mmap.mmap | None, size: int, one: Mapping[str, Any]) -> Array:
    begin, end = int(one["at"]), int(one["at"]) + int(one["bytes"])
    if not 0 <= begin <= end <= size:
        raise InvalidInference(f"{one['name']!r} lies outside of the shared memory")
    part = memoryview(source)[begin:end] if source is not None else memoryview(b"")
    return from_raw(part, str(one["datatype"]), [*one["shape"]], str(one["name"]))


def close_all(buffers: Iterable[SharedBuffer]) -> None:
    """Give back the memory of all."""
    for buffer in buffers:
        with contextlib.suppress(OSError):
            buffer.close()
