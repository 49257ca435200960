"""Folders for work in progress beside what is finished, and what killed processes left of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_YOUNG = 60.0  # seconds; a new folder may not be locked yet


@contextlib.contextmanager
def scratch(root: Path, prefix: str) -> Iterator[Path]:
    """Give a new folder in ``root``, removed with the block unless that renamed it; raise `OSError`.

    Its name begins with ``prefix``; folders of such names whose processes live no more are removed first.
    """
    _sweep(root, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    lock = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # without locks (NFS) nothing is swept either
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path, prefix: str) -> None:
    """Remove the folders that no living process has locked."""
    for folder in root.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another process sweeps too
            if time.time() - folder.stat().st_mtime < _YOUNG:
                continue
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
