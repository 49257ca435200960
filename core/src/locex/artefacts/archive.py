"""Zip archives from elsewhere, checked against bounds before an entry is read. No artefact is ever unpacked to disk."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import IO

from locex.errors import InvalidModel

MAX_ENTRIES = 10_000
MAX_BYTES = 4 * 2**30
MAX_RATIO = 100
"""Uncompressed bytes per byte of the archive; weights compress by less than 2, an architecture's text by about 10."""

_LOCAL_HEADER = 30  # bytes, before name and content


def open_archive(file: IO[bytes], *, packed: int | None = None) -> zipfile.ZipFile:
    """Return the archive in ``file``, or raise `InvalidModel` if it is corrupt, too large or has unsafe names.

    ``packed`` is the size in bytes of what was uploaded, where ``file`` was packed in it: it may not expand twice.
    """
    size = file.seek(0, os.SEEK_END)
    size = min(size, packed or size)
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InvalidModel(
            f"the artefact is a corrupt zip archive: {error}", remedy="upload the artefact again"
        ) from error
    _check_bounds(archive.infolist(), size)
    _check_places(archive.infolist())
    _check_names(archive.infolist())
    return archive


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return an entry's bytes; `zipfile` gives no more than the declared size and checks the CRC."""
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise InvalidModel(
            f"{name!r} in the artefact cannot be read: {error}", remedy="upload the artefact again, unencrypted"
        ) from error


def _check_bounds(entries: list[zipfile.ZipInfo], size: int) -> None:
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES:
        fault = f"{len(entries)} entries, more than {MAX_ENTRIES}"
    elif total > MAX_BYTES:
        fault = f"{total} bytes when unpacked, more than {MAX_BYTES}"
    elif total > MAX_RATIO * size:
        fault = f"{total} bytes in {size}, a compression ratio over {MAX_RATIO}"
    else:
        return
    raise InvalidModel(
        f"the artefact's archive holds {fault}", remedy="store the weights uncompressed, or a smaller model"
    )


def _check_places(entries: list[zipfile.ZipInfo]) -> None:
    """Refuse entries that share bytes: a few then unpack to many (https://www.bamsoftware.com/hacks/zipbomb/)."""
    end = 0
    for entry in sorted(entries, key=lambda one: one.header_offset):
        if entry.header_offset < end:
            raise InvalidModel(
                f"the artefact's archive holds entries that overlap: {entry.filename!r}",
                remedy="pack it again with a common zip tool",
            )
        end = entry.header_offset + _LOCAL_HEADER + len(entry.filename) + entry.compress_size


def _check_names(entries: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for entry in entries:
        # orig_filename: zipfile cuts names at a NUL and turns backslashes on Windows
        name = entry.orig_filename
        path = PurePosixPath(name)
        unsafe = path.is_absolute() or ".." in path.parts or any(sign in name for sign in "\\:\0")
        if unsafe or name in seen or stat.S_ISLNK(entry.external_attr >> 16):
            raise InvalidModel(
                f"the artefact's archive holds the unsafe entry {name!r}",
                remedy="pack plain files under relative names, each once, without '..' or links",
            )
        seen.add(name)
