"""What an ONNX file refers to, read from its bytes before any runtime parses it.

Only the few fields that matter are followed; weights are stepped over. Source: ``onnx.proto3`` and the protocol
buffers' wire format.
"""

from __future__ import annotations

import mmap
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from locex.errors import InvalidModel

BUILT_IN = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.preview.training",
        "ai.onnx.training",
        "com.microsoft",
        "com.microsoft.experimental",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
        "org.pytorch.aten",
    }
)
"""The domains of operators that onnxruntime has itself."""
_REMEDY = "export the model again"
_DEPTH = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TENSOR, _ENTRY, _GRAPH, _NODE, _ATTRIBUTE, _FUNCTION, _SPARSE = range(7)
_LEAF = {
    (_TENSOR, 13): _ENTRY,  # external_data
    (_GRAPH, 1): _NODE,
    (_GRAPH, 5): _TENSOR,  # initializer
    (_GRAPH, 15): _SPARSE,
    (_NODE, 5): _ATTRIBUTE,
    (_ATTRIBUTE, 5): _TENSOR,
    (_ATTRIBUTE, 6): _GRAPH,
    (_ATTRIBUTE, 10): _TENSOR,
    (_ATTRIBUTE, 11): _GRAPH,
    (_ATTRIBUTE, 22): _SPARSE,
    (_ATTRIBUTE, 23): _SPARSE,
    (_SPARSE, 1): _TENSOR,
    (_SPARSE, 2): _TENSOR,
    (_FUNCTION, 7): _NODE,
    (_FUNCTION, 11): _ATTRIBUTE,
}
_MODEL = {7: _GRAPH, 25: _FUNCTION}
_NODE_DOMAIN, _FUNCTION_DOMAIN = 7, 10
_LOCATION, _OFFSET, _LENGTH = b"location", b"offset", b"length"


@dataclass(slots=True)
class References:
    """``external`` are locations of weights with the bytes that must be there; ``domains`` those of operators."""

    external: dict[str, int] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    """Domains of functions that the file itself brings."""


def references_of(path: Path) -> References:
    """Return what a model refers to; raise `InvalidModel` where it is no protocol buffer."""
    found = References()
    if not path.stat().st_size:
        raise InvalidModel("the artefact is empty", remedy=_REMEDY)
    with path.open("rb") as file:
        # not closed by hand: views of its parts may still be held
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        for number, part in fields(view):
            if number in _MODEL and isinstance(part, memoryview):
                _follow(part, _MODEL[number], found, 0)
    except (ValueError, IndexError):
        raise InvalidModel("the artefact is a corrupt ONNX file", remedy=_REMEDY) from None
    return found


def check(path: Path) -> None:
    """Raise `InvalidModel` for operators that onnxruntime lacks, and for weights outside of the version's folder."""
    found = references_of(path)
    if unknown := sorted(found.domains - found.own - BUILT_IN):
        raise InvalidModel(
            f"the model needs operators of the domain {unknown[0]!r}, which are not built into onnxruntime",
            remedy="export the model with standard operators",
        )
    for location, end in found.external.items():
        _check_place(path.parent, location, end)


def companions(path: Path) -> list[Path]:
    """Return the files beside the model that hold weights of it, in the order of their names."""
    return [path.parent / location for location in sorted(references_of(path).external)]


def _check_place(folder: Path, location: str, end: int) -> None:
    parts = PurePosixPath(location).parts
    plain = parts and not PurePosixPath(location).is_absolute() and not {"..", "."} & {*parts} and "\\" not in location
    if not plain or "\0" in location:
        raise _outside(location, "is not a path within the version's folder")
    for depth in range(1, len(parts) + 1):
        try:
            status = folder.joinpath(*parts[:depth]).lstat()
        except OSError:
            raise _outside(location, "is not in the version's folder") from None
        wanted = stat.S_ISREG if depth == len(parts) else stat.S_ISDIR
        if not wanted(status.st_mode):
            raise _outside(location, "is no plain file")
    if end > status.st_size:
        raise _outside(location, f"has {status.st_size} bytes, the model wants {end}")


def _outside(location: str, reason: str) -> InvalidModel:
    return InvalidModel(
        f"the model keeps weights in {location[:200]!r}, which {reason}",
        remedy="put the file beside the model, or save the model in one file (external_data=False)",
    )


def _follow(view: memoryview, kind: int, found: References, depth: int) -> None:
    if depth > _DEPTH:
        raise InvalidModel(f"the model's graphs are nested more than {_DEPTH} deep", remedy=_REMEDY)
    entries: list[tuple[bytes, bytes]] = []
    for number, part in fields(view):
        if not isinstance(part, memoryview):
            continue
        inner = _LEAF.get((kind, number))
        if inner == _ENTRY:
            entries.append(_entry(part))
        elif inner is not None:
            _follow(part, inner, found, depth + 1)
        elif (kind, number) == (_NODE, _NODE_DOMAIN):
            found.domains.add(bytes(part).decode())
        elif (kind, number) == (_FUNCTION, _FUNCTION_DOMAIN):
            found.own.add(bytes(part).decode())
    if entries:
        _note(dict(entries), found)


def _note(entries: dict[bytes, bytes], found: References) -> None:
    location = entries.get(_LOCATION, b"").decode()
    end = int(entries.get(_OFFSET, b"0")) + int(entries.get(_LENGTH, b"0"))
    found.external[location] = max(end, found.external.get(location, 0))


def _entry(view: memoryview) -> tuple[bytes, bytes]:
    parts = {number: bytes(part) for number, part in fields(view) if isinstance(part, memoryview)}
    return parts.get(1, b""), parts.get(2, b"")


def fields(view: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Return the numbers and contents of a message's fields; raise `ValueError` where it is cut off."""
    position, size = 0, len(view)
    while position < size:
        key, position = _varint(view, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(view, position)
            yield number, value
            continue
        if wire == _BYTES:
            length, position = _varint(view, position)
        elif wire in {_FIXED64, _FIXED32}:
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position + length > size:
            raise ValueError("cut off")
        yield number, view[position : position + length]
        position += length


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 -- the wire format's sign that a number goes on
            return value, position
        shift += 7
        if shift > 63:  # noqa: PLR2004 -- no number has more than 64 bits
            raise ValueError("a number of more than 64 bits")
