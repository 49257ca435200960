"""The data source ``npy``: NumPy files, memory-mapped, never unpickled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import Field

from locex.api import Array, Dataset, LocalData, SiteContext
from locex.errors import DataUnavailable
from locex_transforms.sources.arrays import ArraysSource, check_numbers
from locex_transforms.sources.examples import check_alike, check_examples
from locex_transforms.sources.folder import RelativePath, find_file, need_file
from locex_transforms.sources.options import SourceConfig
from locex_transforms.sources.plugin import SourcePlugin


class NpyConfig(SourceConfig):
    """The files, relative to the data folder."""

    x_train: RelativePath = Field(default="x_train.npy", description="Training inputs, shape (n, …).")
    y_train: RelativePath = Field(default="y_train.npy", description="Training targets, shape (n,) or (n, …).")
    x_test: RelativePath = Field(default="x_test.npy", description="Test inputs; see test_fraction.")
    y_test: RelativePath = Field(default="y_test.npy", description="Test targets; see test_fraction.")


class NpyFiles(ArraysSource):
    """The files of one data folder; the format comes from their headers."""

    def __init__(self, config: NpyConfig, context: SiteContext) -> None:
        super().__init__(config, context)
        self._config = config

    def files(self) -> list[Path]:
        """Return the two files, or all four."""
        return [need_file(self._folder, name) for part in self.parts() for name in self._names(part)]

    def has_test(self) -> bool:
        """Tell whether a test file exists."""
        return not self._config.test_fraction or any(find_file(self._folder, name) for name in self._names("test"))

    def load(self) -> LocalData:
        """Return the data: the files themselves, mapped, where nothing is split or filtered."""
        if self._config.filters or not self.has_test():
            return super().load()
        train, test = self._pair("train"), self._pair("test")
        check_alike(train, test, ", ".join((*self._names("train"), *self._names("test"))))
        return LocalData(train, test, self._described(train))

    @contextmanager
    def opened(self, part: str) -> Iterator[tuple[Array, Array]]:
        """Map two files."""
        data = self._pair(part)
        yield data.x, data.y

    def _collected(self, part: str, folder: Path, name: str) -> Dataset:
        # Without filters the files are what would be copied.
        return super()._collected(part, folder, name) if self._config.filters else self._pair(part)

    def _names(self, part: str) -> tuple[str, str]:
        config = self._config
        return (config.x_train, config.y_train) if part == "train" else (config.x_test, config.y_test)

    def _pair(self, part: str) -> Dataset:
        x, y = self._names(part)
        data = Dataset(self._array(x, text=True), self._array(y, text=False))
        check_examples(data, f"{x}, {y}")
        return data

    def _array(self, name: str, *, text: bool) -> Array:
        path = need_file(self._folder, name)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataUnavailable(
                f"{name!r} is not a NumPy file that can be read: {error}",
                remedy="write it with numpy.save(name, array), allow_pickle=False, and a numeric array",
            ) from error
        if not isinstance(array, np.ndarray):
            array.close()
            raise DataUnavailable(f"{name!r} is an archive of arrays", remedy="use the data source npz")
        check_numbers(name, array, text=text)
        return array


class NpySource(SourcePlugin):
    """NumPy files of the data folder, memory-mapped (``npy``)."""

    config_model = NpyConfig
    source = NpyFiles
