"""A torch.export archive, checked and written anew, before PyTorch reads it.

``torch.export.load`` (2.13) unpickles any object where a tensor's description asks for it, where sample inputs are no
plain tensors, and in archives of its older layouts; it runs native code where there is any. Its reader of archives is
another one than Python's. So every entry is read and checked here, and PyTorch gets an archive that we wrote.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NoReturn

from locex.artefacts.archive import read_entry
from locex_torch_builder.exported.graph import checked_program
from locex_torch_builder.exported.refusal import refuse
from locex_torch_builder.exported.sizes import MAX_INTEGER

_MAX_JSON = 64 * 2**20
_MAX_AXES = 64
_PROGRAM = re.compile(r"models/(\w{1,128})\.json")
_PAYLOAD = re.compile(r"(weight|tensor)_\d{1,9}")
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,512}")
_NATIVE = (".so", ".cpp", ".o", ".cubin", ".ptx", ".hsaco", ".dll", ".dylib")
_FIXED = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
_KINDS = {"weights": "data/weights", "constants": "data/constants"}


def rewritten(archive: zipfile.ZipFile, *, trained: bool = True) -> io.BytesIO:
    """Return an archive with the same program and tensors and nothing else; raise `InvalidModel` for what is unsafe.

    See `checked_program` for ``trained``.
    """
    safe = io.BytesIO()
    with zipfile.ZipFile(safe, "w") as written:
        for entry, content in _content(archive, trained=trained):
            written.writestr(f"model/{entry}", content)
    safe.seek(0)
    return safe


def _content(archive: zipfile.ZipFile, *, trained: bool) -> Iterator[tuple[str, bytes]]:
    """Yield names below the one folder with what is written there."""
    entries = _entries(archive)
    name = _program_name(entries)
    yield from _FIXED.items()
    yield ".data/version", b"3\n"
    program = checked_program(_read_json(archive, entries, f"models/{name}.json"), trained=trained)
    yield f"models/{name}.json", _json(program)
    yield f"data/sample_inputs/{name}.pt", b""  # a pickle, which is not needed
    for kind, folder in _KINDS.items():
        yield from _tensors(archive, entries, folder, f"{name}_{kind}_config.json")


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by their names below the archive's one folder."""
    entries = {}
    for entry in archive.infolist():
        if not entry.is_dir():
            _, _, name = entry.filename.partition("/")
            if name in entries:
                refuse(f"it holds {name!r} twice")
            entries[name] = entry
    for name in entries:
        if name.startswith("data/aotinductor/") or PurePosixPath(name).suffix in _NATIVE:
            refuse(f"it holds native code ({name!r})")
    for name, value in _FIXED.items():
        if name not in entries or read_entry(archive, entries[name].filename).strip() != value:
            refuse(f"its {name} is not {value.decode()!r}")
    return entries


def _program_name(entries: dict[str, zipfile.ZipInfo]) -> str:
    names = [found[1] for name in entries if (found := _PROGRAM.fullmatch(name))]
    if len(names) != 1 or sum(name.startswith("models/") for name in entries) != 1:
        refuse("it must hold one program, models/model.json")
    return names[0]


def _tensors(
    archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], folder: str, config: str
) -> Iterator[tuple[str, bytes]]:
    """Yield the description of an archive's weights or constants, then the bytes of each, shared ones once."""
    described = _read_json(archive, entries, f"{folder}/{config}")
    tensors = described.get("config") if isinstance(described, dict) else None
    if not isinstance(tensors, dict):
        refuse(f"{config} describes no tensors")
    yield f"{folder}/{config}", _json({"config": tensors})
    paths = dict.fromkeys(_checked_tensor(name, tensor, entries, folder) for name, tensor in tensors.items())
    yield from ((path, read_entry(archive, entries[path].filename)) for path in paths)


def _checked_tensor(name: str, tensor: Any, entries: dict[str, zipfile.ZipInfo], folder: str) -> str:
    """Return the path of a tensor's bytes."""
    if not _NAME.fullmatch(name) or any(part.startswith("__") for part in name.split(".")):
        refuse(f"it holds a tensor with the name {name[:80]!r}")
    if not isinstance(tensor, dict) or not isinstance(tensor.get("tensor_meta"), dict):
        refuse(f"it does not describe the tensor {name}")
    file, meta = tensor.get("path_name"), tensor["tensor_meta"]
    if tensor.get("use_pickle") is not False or not isinstance(file, str) or not _PAYLOAD.fullmatch(file):
        refuse(f"{name} is a pickle or a custom object, which could run any code when loaded")
    path = f"{folder}/{file}"
    if path not in entries:
        refuse(f"the bytes of {name} are missing")
    if math.prod(_numbers(meta.get("sizes"))) > entries[path].file_size:
        refuse(f"{name} has sizes that its bytes do not hold")
    if meta.get("device") != {"type": "cpu", "index": None}:
        refuse(f"{name} is not on the CPU")
    _numbers(meta.get("strides"))
    _numbers([meta.get("storage_offset")])
    return path


def _numbers(given: Any) -> list[int]:
    """Return sizes or strides, which are given as PyTorch writes them."""
    if not isinstance(given, list) or len(given) > _MAX_AXES:
        refuse("a tensor has no sizes")
    numbers: list[Any] = [one.get("as_int") if isinstance(one, dict) else None for one in given]
    for number in numbers:
        if type(number) is not int or not 0 <= number < MAX_INTEGER:
            refuse("a tensor's size is not a number")
    return numbers


def _read_json(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str) -> Any:
    entry = entries.get(name)
    if entry is None:
        refuse(f"{name} is missing; archives of PyTorch before 2.9 hold pickles")
    if entry.file_size > _MAX_JSON:
        refuse(f"{name} is larger than {_MAX_JSON} bytes")
    try:
        return json.loads(read_entry(archive, entry.filename), parse_constant=_not_json)
    except (ValueError, RecursionError):
        refuse(f"{name} is not JSON")


def _not_json(text: str) -> NoReturn:
    raise ValueError(text)


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()
