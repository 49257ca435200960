"""Files inside the site's data folder, and never outside of it."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Annotated

from pydantic import AfterValidator, Field

from locex.errors import DataUnavailable


def _inside(name: str) -> str:
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError("must be a path inside the data folder: relative, without '..'")
    return name


RelativePath = Annotated[str, Field(min_length=1), AfterValidator(_inside)]
"""A file name, or a relative path below the data folder."""


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file, or None if there is none; raise `DataUnavailable` where a link leads out of the folder."""
    path = _inner(folder, name)
    return path if path.is_file() else None


def find_folder(folder: Path, name: str) -> Path | None:
    """Return a folder in the folder, or None if there is none; raise `DataUnavailable` likewise."""
    path = _inner(folder, name)
    return path if path.is_dir() else None


def need_file(folder: Path, name: str) -> Path:
    """Return the file, or raise `DataUnavailable`."""
    return _needed(find_file(folder, name), folder, name)


def need_folder(folder: Path, name: str) -> Path:
    """Return a folder in the folder, or raise `DataUnavailable`."""
    return _needed(find_folder(folder, name), folder, name)


def _inner(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataUnavailable(
            f"{name!r} leads out of the data folder {folder}",
            remedy="put the file itself, not a link to another place, into the data folder",
        )
    return path


def _needed(path: Path | None, folder: Path, name: str) -> Path:
    if path is None:
        raise DataUnavailable(
            f"{name!r} is not in the data folder {folder}",
            remedy="put the file there, or name another one in the data source's configuration",
        )
    return path
