"""What travels in place of a model: a header that anybody can read, and blocks of ciphertexts, as byte arrays.

The first array begins with `MAGIC`, so that it is told from a model's tensor and never guessed. Every block holds up
to `PER_BLOCK` ciphertexts, each behind its length (4 bytes, little-endian): a model of any size is packed, sent and
added a few megabytes at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from locex.api import Array, Incoming

MAGIC = b"locex-ckks-1\n"
PER_BLOCK = 64
_LONGEST = 4096  # bytes of a header
_LENGTH = struct.Struct("<I")


class Header(BaseModel):
    """What everybody may know of ciphertexts."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key: str = Field(max_length=64, description="The key's id.")
    layout: str = Field(max_length=64, description="Digest of names, shapes and types of the model's tensors.")
    values: int = Field(ge=0, description="Values in all ciphertexts together.")
    examples: int = Field(ge=0, description="By how much the values are to be divided.")

    def blocks(self, slots: int) -> list[int]:
        """Return how many ciphertexts each of the blocks that follow holds."""
        ciphertexts = -(-self.values // slots)
        return [min(PER_BLOCK, ciphertexts - start) for start in range(0, ciphertexts, PER_BLOCK)] or [0]


def tensors_of(incoming: Incoming) -> Sequence[Array]:
    """Return what arrived, in order."""
    return list(incoming.values()) if isinstance(incoming, Mapping) else incoming


def is_encrypted(tensors: Sequence[Array]) -> bool:
    """Tell whether tensors are ciphertexts with their header."""
    if not tensors or tensors[0].dtype != np.uint8 or tensors[0].ndim != 1:
        return False
    return tensors[0][: len(MAGIC)].tobytes() == MAGIC


def pack(header: Header, ciphertexts: Iterable[bytes]) -> list[Array]:
    """Return a header and ciphertexts as arrays of bytes."""
    arrays, block = [_array(MAGIC + header.model_dump_json().encode())], bytearray()
    for index, ciphertext in enumerate(ciphertexts):
        if index and index % PER_BLOCK == 0:
            arrays.append(_array(bytes(block)))
            block = bytearray()
        block += _LENGTH.pack(len(ciphertext)) + ciphertext
    return [*arrays, _array(bytes(block))]


def header_of(tensors: Sequence[Array]) -> Header:
    """Return the header; raise `ValueError` where there is none."""
    if not is_encrypted(tensors):
        raise ValueError("it is not encrypted: the node's job does not name the mechanism")
    try:
        return Header.model_validate_json(tensors[0][len(MAGIC) : _LONGEST].tobytes())
    except ValidationError:
        raise ValueError("the header of its ciphertexts cannot be read") from None


def ciphertexts_of(block: Array) -> Iterator[bytes]:
    """Return the ciphertexts of a block one by one; raise `ValueError` where it is torn."""
    if block.dtype != np.uint8 or block.ndim != 1:
        raise ValueError("a block of ciphertexts is no array of bytes")
    content, start = block.tobytes(), 0
    while start < len(content):
        if start + _LENGTH.size > len(content):
            raise ValueError("a block of ciphertexts is torn")
        (length,) = _LENGTH.unpack_from(content, start)
        start += _LENGTH.size
        if start + length > len(content):
            raise ValueError("a block of ciphertexts is torn")
        yield content[start : start + length]
        start += length


def _array(content: bytes) -> Array:
    return np.frombuffer(content, np.uint8)
