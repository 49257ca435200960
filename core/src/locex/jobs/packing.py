"""A run's checkpoint as one archive: the current generation of the folder that its worker writes, as a zip."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from locex.artefacts.archive import MAX_BYTES, open_archive
from locex.errors import TooLarge

_CHUNK = 1 << 20


def pack(folder: Path) -> Iterator[bytes]:
    """Yield the archive; raise `OSError` where there is no whole generation, `TooLarge` for one beyond `MAX_BYTES`.

    Equal generations give equal archives.
    """
    with ExitStack() as stack:
        files = _open_current(folder, stack)
        sizes = {name: os.fstat(file.fileno()).st_size for name, file in files.items() if file}
        if sum(sizes.values()) > MAX_BYTES:
            raise TooLarge(
                f"a checkpoint of {sum(sizes.values())} bytes is more than the {MAX_BYTES} that the store takes",
                remedy="give the state folder a volume, and unset LOCEX_CHECKPOINTS",
            )
        sink = _Sink()
        with zipfile.ZipFile(sink, "w") as archive:
            for name, file in files.items():
                entry = zipfile.ZipInfo(name)
                if file is None:
                    archive.writestr(entry, b"")
                    continue
                entry.file_size = sizes[name]
                with archive.open(entry, "w") as target:
                    while chunk := file.read(_CHUNK):
                        target.write(chunk)
                        yield sink.take()
        yield sink.take()


def unpack(path: Path, folder: Path) -> int:
    """Put the archive's generation where a worker looks for it, whole or not at all; return its round.

    Raise `InvalidModel`, `OSError`, or what `zipfile` raises, for an archive that `pack` did not make.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with path.open("rb") as file, open_archive(file) as archive:
        (generation,) = {name.split("/")[0] for name in archive.namelist()}
        server_round = int(generation.partition("-")[0])
        archive.extractall(part)
    (part / "current").write_text(generation, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
    return server_round


def _open_current(folder: Path, stack: ExitStack) -> dict[str, IO[bytes] | None]:
    """Open the files of the current generation (None: a folder), by their names in the archive.

    The worker drops a generation after it named the next: what is opened while the name stays is whole.
    """
    while True:
        generation = _current(folder)
        with ExitStack() as opened:
            files = _open_all(folder, generation, opened)
            if _current(folder) != generation:
                continue
            if not files:
                raise FileNotFoundError(f"the generation {generation} in {folder} is not whole")
            stack.push(opened.pop_all())
            return files


def _open_all(folder: Path, generation: str, stack: ExitStack) -> dict[str, IO[bytes] | None]:
    """Open a generation's files; return none of them if one is gone."""
    files = dict[str, IO[bytes] | None]()
    try:
        for path in sorted((folder / generation).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_dir():
                files[f"{name}/"] = None
            else:
                files[name] = stack.enter_context(path.open("rb"))
    except FileNotFoundError:
        return {}
    return files


def _current(folder: Path) -> str:
    return (folder / "current").read_text(encoding="utf-8")


class _Sink:
    """Where a `ZipFile` writes to, and from where it is taken at once."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes, /) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        """Do nothing: there is nowhere to flush to."""

    def close(self) -> None:
        """Do nothing likewise."""

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken
