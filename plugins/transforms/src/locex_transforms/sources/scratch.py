"""Folders for work in progress, in the site's cache folder if it has one, and what killed processes left of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from locex.api import SiteContext
from locex.errors import DataUnavailable

_MAKING = ".making-"
_YOUNG = 60.0  # seconds; a new folder may not be locked yet


def root_of(context: SiteContext) -> Path | None:
    """Return the folder of these sources in the site's cache folder, which other sources use too."""
    return context.cache_folder and context.cache_folder / "arrays"


@contextlib.contextmanager
def scratch(root: Path | None) -> Iterator[Path]:
    """Give a folder in ``root``, or among the system's temporary files, that is removed with the block.

    Raise `DataUnavailable` where there can be none.
    """
    if root is None:
        with tempfile.TemporaryDirectory(prefix="locex-data-") as name:
            yield Path(name)
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        folder = Path(tempfile.mkdtemp(prefix=_MAKING, dir=root))
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise unwritable(root, error) from error
    try:
        with contextlib.suppress(OSError):  # without locks (NFS) nothing is swept either
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def discard(root: Path, path: Path) -> None:
    """Remove a folder below ``root`` at once: no half of it is ever found. Who has its files mapped keeps them."""
    gone = root / f"{_MAKING}{secrets.token_hex(8)}"
    with contextlib.suppress(OSError):  # another process was first
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def unwritable(folder: Path, error: OSError) -> DataUnavailable:
    """Return the error for a folder without room or right."""
    return DataUnavailable(
        f"data larger than in_memory cannot be written to {folder}: {error}",
        remedy="make room there, or let PREPROCESSED_FOLDER name a folder with room",
    )


def _sweep(root: Path) -> None:
    """Remove the folders of processes that live no more: nobody holds their locks."""
    for path in root.glob(f"{_MAKING}*"):
        with contextlib.suppress(OSError):  # another process sweeps too
            if time.time() - path.stat().st_mtime < _YOUNG:
                continue
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
