"""Folders for work in progress: in the site's cache folder, if it has one."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from locex.api import SiteContext
from locex.errors import DataUnavailable
from locex.scratch import scratch as scratch_in

_MAKING = ".making-"


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
    with contextlib.ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(scratch_in(root, _MAKING))
        except OSError as error:
            raise unwritable(root, error) from error
        yield folder


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
