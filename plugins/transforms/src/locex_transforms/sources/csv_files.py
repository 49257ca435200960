"""The data source ``csv``: tables of numbers as text."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from pydantic import Field

from locex.api import Array, Dataset, DataSource, LocalData, SiteContext
from locex.errors import DataUnavailable
from locex.hookspecs import hookimpl
from locex.schemas.data_format import DataFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.sources.csv_table import Columns, Table, read_table
from locex_transforms.sources.examples import check_examples, describe, split
from locex_transforms.sources.folder import RelativePath, find_file, need_file

EXACT = 2.0**53  # up to here every integer is a float64


class CsvConfig(PluginConfig):
    """The files, relative to the data folder, and their columns."""

    train: RelativePath = Field(default="train.csv", description="The file of training examples.")
    test: RelativePath = Field(default="test.csv", description="The file of test examples; see test_fraction.")
    target: list[str | int] = Field(
        min_length=1, description="The column or columns of y: names, or positions from 0 (negative: from the end)."
    )
    features: list[str | int] | None = Field(
        default=None, min_length=1, description="The columns of x, likewise; all that are no target if absent."
    )
    delimiter: str = Field(default=",", pattern=r'^[^"\r\n]$', description="The character between columns.")
    header: bool = Field(default=True, description="Whether the first line names the columns.")
    test_fraction: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Share of the training examples that becomes test data if the test file is missing; 0: it must be.",
    )
    x_kind: str | None = Field(default=None, description="Kind of the inputs, instead of tabular.")
    y_kind: str | None = Field(
        default=None, description="Kind of the targets, instead of the one that they tell; numerical keeps floats."
    )


class CsvFiles:
    """The files of one data folder; text tells no types, so that even the format takes a first reading."""

    def __init__(self, config: CsvConfig, context: SiteContext) -> None:
        self._config = config
        self._folder = context.data_folder
        self._seed = context.seed

    def format(self) -> DataFormat:
        """Return the format: ``x`` float32, ``y`` int64 where every target is an integer, else float32."""
        return describe(self._datasets[0], self._config.x_kind, self._config.y_kind)

    def load(self) -> LocalData:
        """Return the data, in memory: ``x`` (n, features), ``y`` (n,) or, of several targets, (n, targets)."""
        train, test = self._datasets
        if test is None:
            train, test = split(train, self._config.test_fraction, self._seed)
        return LocalData(train, test, self.format())

    @cached_property
    def _datasets(self) -> tuple[Dataset, Dataset | None]:
        config = self._config
        train = self._table(config.train)
        if config.test_fraction and not find_file(self._folder, config.test):
            return self._dataset(train, config.train, _integers(train.y)), None
        test = self._table(config.test)
        if train.names != test.names:
            raise DataUnavailable(
                f"the columns of {config.train} are {train.names}, those of {config.test} are {test.names}",
                remedy="write the columns of both files in one order, or list features",
            )
        integers = _integers(train.y) and _integers(test.y)
        return self._dataset(train, config.train, integers), self._dataset(test, config.test, integers)

    def _table(self, name: str) -> Table:
        config = self._config
        path = need_file(self._folder, name)
        return read_table(path, Columns(config.target, config.features), config.delimiter, header=config.header)

    def _dataset(self, table: Table, name: str, integers: bool) -> Dataset:
        as_class = integers and self._config.y_kind != "numerical"
        y = table.y.astype(np.int64 if as_class else np.float32)
        data = Dataset(table.x.astype(np.float32), y[:, 0] if y.shape[1] == 1 else y)
        check_examples(data, name)
        return data


def _integers(values: Array) -> bool:
    return bool(np.all((np.abs(values) <= EXACT) & (values == np.floor(values))))


class CsvSource:
    """CSV files of numbers in the data folder (``csv``)."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return `CsvConfig`."""
        return CsvConfig

    @hookimpl
    def locex_create_data(self, config: CsvConfig, context: SiteContext) -> DataSource:
        """Return the files of the site's data folder."""
        return CsvFiles(config, context)
