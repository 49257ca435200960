"""Arrays larger than memory, some examples at a time."""

from __future__ import annotations

from collections.abc import Iterator

from locex.api import Array

CHUNK_BYTES = 2**24


def chunks(array: Array) -> Iterator[Array]:
    """Return the examples in order, in views of about 16 MiB."""
    rows = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    for begin in range(0, len(array), rows):
        yield array[begin : begin + rows]
