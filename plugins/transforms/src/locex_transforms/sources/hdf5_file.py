"""The data source ``hdf5``: datasets of one HDF5 file, read in batches.

Nothing in the file may lead elsewhere or load code: no links, external storage or virtual datasets, and only the
filters that are part of HDF5 itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import Field

from locex.api import SiteContext
from locex.errors import DataUnavailable
from locex_transforms.batches import BATCH_BYTES
from locex_transforms.sources.archive_names import NamedArraysConfig, OneFileSource, is_bomb
from locex_transforms.sources.arrays import Stored, check_numbers, example_bytes
from locex_transforms.sources.folder import RelativePath
from locex_transforms.sources.options import MIB
from locex_transforms.sources.plugin import SourcePlugin

BUILT_IN = frozenset(range(1, 7)) | {32000}
"""deflate, shuffle, fletcher32, szip, nbit, scaleoffset; h5py's own lzf."""
CHUNK_LIMIT = 256 * MIB


class Hdf5Config(NamedArraysConfig):
    """The file, relative to the data folder; names may lead through groups: ``images/train``."""

    file: RelativePath = Field(default="data.h5", description="The HDF5 file.")


class Hdf5File(OneFileSource):
    """One HDF5 file of the data folder."""

    def __init__(self, config: Hdf5Config, context: SiteContext) -> None:
        super().__init__(config, config.file, context)

    def has_test(self) -> bool:
        """Tell whether the file has a test dataset."""
        if not self._config.test_fraction:
            return True
        with self._opened() as file:
            return any(_found(file, name) is not None for name in self._config.names("test"))

    @contextmanager
    def opened(self, part: str) -> Iterator[tuple[Stored, Stored]]:
        """Open two datasets."""
        with self._opened() as file:
            x, y = (self._dataset(file, name) for name in self._config.names(part))
            yield x, y

    def rows(self, x: Stored, y: Stored) -> int:
        """Return whole chunks of the file, as far as memory allows: each is decompressed once."""
        rows = super().rows(x, y)
        chunks: tuple[int, ...] | None = getattr(x, "chunks", None)
        if not chunks:
            return rows
        chunk = math.prod(chunks) * x.dtype.itemsize
        most = max(2 * BATCH_BYTES, chunk) // max(1, example_bytes(x))  # chunks may be tall, and narrower than examples
        return max(1, min(max(rows // chunks[0], 1) * chunks[0], most))

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import h5py

        path = self.path
        try:
            with h5py.File(path, "r") as file:
                yield file
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise DataUnavailable(
                f"{self._file!r} is not an HDF5 file that can be read: {error}", remedy="write it again"
            ) from error

    def _dataset(self, file: Any, name: str) -> Stored:
        import h5py

        found = _found(file, name)
        if not isinstance(found, h5py.Dataset):
            raise DataUnavailable(
                f"{self._file!r} has no dataset {name!r}; at its top are: {', '.join(sorted(file)[:50])}",
                remedy="correct x_train, y_train, x_test and y_test of the data source",
            )
        fault = _fault(found)
        if fault:
            raise DataUnavailable(
                f"{self._file!r}: {name!r} {fault}",
                remedy="write the data themselves into the file, in chunks, with gzip or without compression",
            )
        check_numbers(f"{self._file}: {name}", found)
        dataset: Stored = found
        return dataset


def _found(file: Any, name: str) -> Any:
    """Return what a name means, or None; raise `DataUnavailable` for soft and external links on the way."""
    import h5py

    place = file
    for part in filter(None, name.split("/")):
        if not isinstance(place, h5py.Group) or part not in {*place}:
            return None
        if not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise DataUnavailable(f"{name!r} is a link", remedy="write the dataset itself into the file")
        place = place[part]
    return place


def _fault(dataset: Any) -> str | None:
    properties = dataset.id.get_create_plist()
    if dataset.is_virtual or properties.get_external_count():
        return "holds data of other files"
    filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
    if filters - BUILT_IN:
        return f"needs the filters {sorted(filters - BUILT_IN)}, which would be loaded as code"
    if dataset.dtype.kind not in "biuf":
        return f"holds {dataset.dtype}, no numbers"
    if dataset.shape is None or is_bomb(dataset.nbytes, dataset.id.get_storage_size()):
        return f"declares shape {dataset.shape}, but has {dataset.id.get_storage_size()} bytes"
    if dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > CHUNK_LIMIT:
        return f"has chunks of shape {dataset.chunks}, more than {CHUNK_LIMIT // MIB} MiB"
    return None


class Hdf5Source(SourcePlugin):
    """Datasets of one HDF5 file of the data folder (``hdf5``)."""

    config_model = Hdf5Config
    source = Hdf5File
