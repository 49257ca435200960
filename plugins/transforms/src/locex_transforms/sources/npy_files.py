"""The data source ``npy``: NumPy files, memory-mapped, never unpickled."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from locex.api import Array, Dataset, DataSource, LocalData, SiteContext
from locex.errors import DataUnavailable
from locex.hookspecs import hookimpl
from locex.schemas.data_format import DataFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.sources.examples import check_alike, check_examples, describe, split
from locex_transforms.sources.folder import RelativePath, find_file, need_file


class NpyConfig(PluginConfig):
    """The files, relative to the data folder, and what they hold."""

    x_train: RelativePath = Field(default="x_train.npy", description="Training inputs, shape (n, …).")
    y_train: RelativePath = Field(default="y_train.npy", description="Training targets, shape (n,) or (n, …).")
    x_test: RelativePath = Field(default="x_test.npy", description="Test inputs; see test_fraction.")
    y_test: RelativePath = Field(default="y_test.npy", description="Test targets; see test_fraction.")
    test_fraction: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Share of the training examples that becomes test data if neither test file exists; 0: they must.",
    )
    x_kind: str | None = Field(default=None, description="Kind of the inputs, instead of the one that ranks tell.")
    y_kind: str | None = Field(default=None, description="Kind of the targets, instead of the one that types tell.")


class NpyFiles:
    """The files of one data folder."""

    def __init__(self, config: NpyConfig, context: SiteContext) -> None:
        self._config = config
        self._folder = context.data_folder
        self._seed = context.seed

    def format(self) -> DataFormat:
        """Return the format, from the files' headers."""
        train, _ = self._map()
        return describe(train, self._config.x_kind, self._config.y_kind)

    def load(self) -> LocalData:
        """Return the data: memory-mapped read-only where test files exist, in memory where it has to be split."""
        train, test = self._map()
        data_format = describe(train, self._config.x_kind, self._config.y_kind)
        if test is None:
            train, test = split(train, self._config.test_fraction, self._seed)
        return LocalData(train, test, data_format)

    def _map(self) -> tuple[Dataset, Dataset | None]:
        config = self._config
        train = self._pair(config.x_train, config.y_train)
        found = [name for name in (config.x_test, config.y_test) if find_file(self._folder, name)]
        if not found and config.test_fraction:
            return train, None
        test = self._pair(config.x_test, config.y_test)
        check_alike(train, test, f"{config.x_train}, {config.y_train} and {config.x_test}, {config.y_test}")
        return train, test

    def _pair(self, x: str, y: str) -> Dataset:
        data = Dataset(self._array(x), self._array(y))
        check_examples(data, f"{x}, {y}")
        return data

    def _array(self, name: str) -> Array:
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
            raise DataUnavailable(f"{name!r} is an archive of arrays", remedy="write one array with numpy.save")
        if array.dtype.kind not in "biuf" or not array.dtype.isnative or array.ndim == 0:
            raise DataUnavailable(
                f"{name!r} holds {array.dtype.str} of shape {array.shape}",
                remedy="save numbers of this machine's byte order with an axis of examples",
            )
        return array


class NpySource:
    """NumPy files of the data folder, memory-mapped (``npy``)."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return `NpyConfig`."""
        return NpyConfig

    @hookimpl
    def locex_create_data(self, config: NpyConfig, context: SiteContext) -> DataSource:
        """Return the files of the site's data folder."""
        return NpyFiles(config, context)
