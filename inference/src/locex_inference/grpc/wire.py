"""Raw tensors in messages, past protobuf: it would copy their bytes twice on the way in and twice on the way out.

Source: Protocol Buffers, "Encoding". ``raw_input_contents`` is field 7 of a `ModelInferRequest`,
``raw_output_contents`` field 6 of a `ModelInferResponse`; both are repeated bytes at the top level.
"""

from __future__ import annotations

from collections.abc import Iterable

_RAW_INPUT = 7 << 3 | 2
_RAW_OUTPUT = bytes([6 << 3 | 2])
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST = 10  # bytes of a varint


def split(content: bytes) -> tuple[bytes, list[memoryview]]:
    """Return a request without its raw tensors, and views of these; what is no message is returned whole."""
    view = memoryview(content)
    kept: list[memoryview] = []
    raw: list[memoryview] = []
    position, kept_from, end = 0, 0, len(content)
    try:
        while position < end:
            start = position
            key, position = _varint(content, position)
            kind = key & 7
            if kind == _LENGTH:
                length, position = _varint(content, position)
                if position + length > end:
                    return content, []
                if key == _RAW_INPUT:
                    raw.append(view[position : position + length])
                    kept.append(view[kept_from:start])
                    kept_from = position + length
                position += length
            elif kind == _VARINT:
                _, position = _varint(content, position)
            elif kind in {_FIXED64, _FIXED32}:
                position += 8 if kind == _FIXED64 else 4
            else:
                return content, []
    except (IndexError, ValueError):
        return content, []
    kept.append(view[kept_from:])
    return b"".join(kept), raw


def join(header: bytes, raw: Iterable[bytes | memoryview]) -> bytes:
    """Return a response: what protobuf wrote of it, followed by its raw tensors."""
    parts: list[bytes | memoryview] = [header]
    for content in raw:
        parts += (_RAW_OUTPUT, _written(len(content)), content)
    return b"".join(parts)


def _varint(content: bytes, position: int) -> tuple[int, int]:
    byte = content[position]
    if byte < 128:  # noqa: PLR2004 -- the bit that says that more bytes follow
        return byte, position + 1
    value = shift = 0
    for index in range(position, position + _LONGEST):
        byte = content[index]
        value |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004
            return value, index + 1
        shift += 7
    raise ValueError("a varint is too long")


def _written(value: int) -> bytes:
    found = bytearray()
    while value > 127:  # noqa: PLR2004
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
