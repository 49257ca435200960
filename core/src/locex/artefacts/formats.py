"""What a file is, by its content: an artefact of the wrong kind is refused with its own name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import IO

from locex.artefacts.archive import open_archive
from locex.artefacts.manifest import MANIFEST, library_of
from locex.errors import InvalidModel

PICKLE = "a pickle, which could run any code when loaded"

_SIGNATURES = ((0, b"\x80", PICKLE), (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (.h5)"), (4, b"TFL3", "a TFLite model"))
_MEMBERS = (
    (frozenset({MANIFEST}), f"a named architecture ({MANIFEST})"),
    (frozenset({"config.json", "model.weights.h5"}), "a Keras model (.keras)"),
    (frozenset({"saved_model.pb"}), "a TensorFlow SavedModel"),
    (frozenset({"archive_format", "archive_version"}), "a torch.export archive (.pt2)"),
    (frozenset({"constants.pkl", "data.pkl"}), "a TorchScript program"),
    (frozenset({"scripted_model.pt"}), "a zipped TorchScript program"),
    (frozenset({"data.pkl"}), f"{PICKLE} (torch.save)"),
)
_SHORT = (
    ("a named architecture", "architecture"),
    ("an HDF5 file", "hdf5"),
    ("a Keras model", "keras"),
    ("an ONNX model", "onnx"),
    ("a pickle", "pickle"),
    ("bare safetensors", "safetensors"),
    ("a TensorFlow SavedModel", "savedmodel"),
    ("a TFLite model", "tflite"),
    ("a torch.export archive", "torch-export"),
    ("a TorchScript program", "torchscript"),
    ("a zipped TorchScript program", "torchscript"),
)
_HEAD = 4096


def format_of(file: IO[bytes]) -> str | None:
    """Return the short name of a file's format, by its content; None where it is unknown.

    The names are ``architecture/<library>``, ``hdf5``, ``keras``, ``onnx``, ``pickle``, ``safetensors``,
    ``savedmodel``, ``tflite``, ``torch-export`` and ``torchscript``: inferencers say with them what they take.
    Raise `InvalidModel` where it is an archive that must not be read.
    """
    phrase = name_of(file)
    short = next((short for word, short in _SHORT if phrase.startswith(word)), None)
    if short != "architecture":
        return short
    with open_archive(file) as archive:
        return f"architecture/{library_of(archive)}" if MANIFEST in archive.namelist() else None


def name_of(file: IO[bytes]) -> str:
    """Return what a file is, as a phrase; raise `InvalidModel` where it is an archive that must not be read."""
    file.seek(0)
    head = file.read(_HEAD)
    if head.startswith(b"PK"):
        with open_archive(file) as archive:
            return _by_members(archive.namelist())
    for offset, signature, name in _SIGNATURES:
        if head[offset:].startswith(signature):
            return name
    if _is_safetensors(head, file):
        return "bare safetensors weights, without the architecture"
    if _is_onnx(head):
        return "an ONNX model"
    return "of an unknown format" if head else "empty"


def wrong_format(file: IO[bytes], library: str, accepted: str) -> InvalidModel:
    """Return the error for an artefact that a builder does not load; ``accepted`` says what it takes."""
    name = name_of(file)
    if name.startswith(("of ", "empty")):
        return InvalidModel(f"the artefact is {name}", remedy=f"upload {accepted}")
    return InvalidModel(
        f"the artefact is {name}, which is none of the formats of the library {library!r}",
        remedy=f"upload {accepted}; or correct meta.library in the model's metadata, if the file is the right one",
    )


def _by_members(names: Iterable[str]) -> str:
    found = {PurePosixPath(name).name for name in names}
    for members, name in _MEMBERS:
        if members <= found:
            return name
    if any(name.endswith((".pkl", ".pickle", ".pth", ".bin")) for name in found):
        return f"{PICKLE} (in a zip)"
    return "a zip archive that holds no known model"


def _is_safetensors(head: bytes, file: IO[bytes]) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 0 < length < file.seek(0, os.SEEK_END)


def _is_onnx(head: bytes) -> bool:
    """Return whether the head is that of a ModelProto: its first field is the version, the next the producer."""
    return len(head) > 3 and head[0] == 0x08 and head[1] < 0x20 and head[2] in {0x12, 0x3A, 0x42}  # noqa: PLR2004
