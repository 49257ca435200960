"""Parameters in safetensors files, in the model's own order."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from locex.durable import sync
from locex.errors import InvalidModel

if TYPE_CHECKING:
    from locex.api import Array

_HEADER_LIMIT = 100 * 2**20


def read_parameters(path: Path) -> tuple[list[str], list[Array], dict[str, str]]:
    """Return names, tensors and the file's metadata; raise `InvalidModel`.

    The order is that of the metadata's ``names`` (a JSON list), which `is_ordered` tells of, else of the file's
    header: safetensors itself sorts tensors by type and name.
    """
    try:
        header = _header(path)
        tensors = load_file(path)
    except (OSError, ValueError, struct.error, SafetensorError) as error:
        raise InvalidModel(
            f"{path.name} is no readable safetensors file: {error}",
            remedy="upload weights as safetensors, with the tensors in the model's order",
        ) from None
    metadata: dict[str, str] = header.get("__metadata__", {})
    names: list[str] = json.loads(metadata["names"]) if "names" in metadata else [n for n in header if n in tensors]
    if sorted(names) != sorted(tensors):
        raise InvalidModel(
            f"the metadata of {path.name} names other tensors than it holds",
            remedy="write the metadata's names from the tensors themselves",
        )
    return names, [tensors[name] for name in names], metadata


def is_ordered(metadata: Mapping[str, str]) -> bool:
    """Tell whether a file's metadata names the model's own order."""
    return "names" in metadata


def write_parameters(
    path: Path, names: Sequence[str], parameters: Sequence[Array], metadata: Mapping[str, str]
) -> None:
    """Write a file atomically and durably: temporary file, fsync, rename, fsync of the folder."""
    content = save(dict(zip(names, parameters, strict=True)), metadata={"names": json.dumps(list(names)), **metadata})
    temporary = path.with_suffix(".partial")
    temporary.write_bytes(content)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def _header(path: Path) -> dict[str, dict[str, str]]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _HEADER_LIMIT:
            raise ValueError("its header is too long")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no object")  # noqa: TRY004 -- caught above as a broken file
    return header
