"""Arrays larger than memory, some examples at a time."""

from __future__ import annotations

from collections.abc import Iterator

from locex.api import Array

BATCH_BYTES = 2**24
"""Bytes of a batch, about."""


def rows_of(example_bytes: int) -> int:
    """Return how many examples make a batch of about 16 MiB."""
    return max(1, BATCH_BYTES // max(1, example_bytes))


def batches(array: Array) -> Iterator[Array]:
    """Return the examples in order, in views of about 16 MiB."""
    rows = rows_of(array[:1].nbytes)
    for begin in range(0, len(array), rows):
        yield array[begin : begin + rows]
