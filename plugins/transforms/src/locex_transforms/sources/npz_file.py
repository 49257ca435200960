"""The data source ``npz``: arrays of one archive, decompressed in batches, never unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import numpy as np
from pydantic import Field

from locex.api import Array, SiteContext
from locex.errors import DataUnavailable
from locex_transforms.sources.archive_names import NamedArraysConfig, OneFileSource, is_bomb
from locex_transforms.sources.arrays import check_numbers
from locex_transforms.sources.folder import RelativePath
from locex_transforms.sources.plugin import SourcePlugin

HEADER_BYTES = 10_000


class NpzConfig(NamedArraysConfig):
    """The archive, relative to the data folder."""

    file: RelativePath = Field(default="data.npz", description="The archive that numpy.savez wrote.")


class NpzFile(OneFileSource):
    """One archive of the data folder."""

    def __init__(self, config: NpzConfig, context: SiteContext) -> None:
        super().__init__(config, config.file, context)

    def has_test(self) -> bool:
        """Tell whether the archive has a test array."""
        if not self._config.test_fraction:
            return True
        with self._archive() as archive:
            return any(f"{name}.npy" in archive.namelist() for name in self._config.names("test"))

    @contextmanager
    def opened(self, part: str) -> Iterator[tuple[Member, Member]]:
        """Open two members at their first example."""
        with self._archive() as archive, ExitStack() as stack:
            x, y = (self._member(archive, name, stack) for name in self._config.names(part))
            check_numbers(f"{self._file}: {x.name}", x, text=True)
            check_numbers(f"{self._file}: {y.name}", y)
            yield x, y

    @contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        path = self.path
        try:
            with zipfile.ZipFile(path) as archive:
                yield archive
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise DataUnavailable(
                f"{self._file!r} is not an archive of NumPy arrays that can be read: {error}",
                remedy="write it with numpy.savez or numpy.savez_compressed, of numeric arrays in C order",
            ) from error

    def _member(self, archive: zipfile.ZipFile, name: str, stack: ExitStack) -> Member:
        try:
            info = archive.getinfo(f"{name}.npy")
        except KeyError:
            listing = ", ".join(sorted(entry.removesuffix(".npy") for entry in archive.namelist())[:50])
            raise DataUnavailable(
                f"{self._file!r} has no array {name!r}; its arrays are: {listing}",
                remedy="correct x_train, y_train, x_test and y_test of the data source",
            ) from None
        if is_bomb(info.file_size, info.compress_size):
            raise DataUnavailable(
                f"{self._file!r}: {name!r} has {info.file_size} bytes in {info.compress_size}",
                remedy="write it uncompressed, with numpy.savez",
            )
        return Member(name, stack.enter_context(archive.open(info)))


class Member:
    """One array, read from its first example to its last."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        """Raise `ValueError` for objects, and for Fortran order, whose examples do not stand one after another."""
        self.name = name
        self._stream = stream
        version = np.lib.format.read_magic(stream)
        reads: dict[tuple[int, int], Any] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in reads:
            raise ValueError(f"{name} has version {version} of NumPy's format")
        self.shape: tuple[int, ...]
        self.dtype: np.dtype[Any]
        self.shape, fortran, self.dtype = reads[version](stream, max_header_size=HEADER_BYTES)
        if fortran and len(self.shape) > 1:
            raise ValueError(f"{name} is in Fortran order")

    def __len__(self) -> int:
        """Return the number of examples."""
        return int(self.shape[0])

    def __getitem__(self, rows: slice, /) -> Array:
        """Return the next examples; raise `ValueError` where the member ends before."""
        begin, end, _ = rows.indices(len(self))
        shape = (end - begin, *self.shape[1:])
        size = int(np.prod(shape)) * self.dtype.itemsize
        content = self._stream.read(size)
        if len(content) < size:
            raise ValueError(f"{self.name} is truncated")
        return np.frombuffer(content, self.dtype).reshape(shape)


class NpzSource(SourcePlugin):
    """NumPy arrays of one archive of the data folder (``npz``)."""

    config_model = NpzConfig
    source = NpzFile
