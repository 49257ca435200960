"""The data source ``timeseries``: windows over the rows of a table, in the order of the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from locex.api import Array, Dataset, SiteContext
from locex.errors import DataUnavailable
from locex_transforms.batches import rows_of
from locex_transforms.sources.batched import BatchedSource, Batches
from locex_transforms.sources.csv_table import CsvTable
from locex_transforms.sources.filters import chosen
from locex_transforms.sources.folder import RelativePath, find_file, need_file
from locex_transforms.sources.growing import grown
from locex_transforms.sources.options import SourceConfig
from locex_transforms.sources.parquet_table import ParquetTable
from locex_transforms.sources.plugin import SourcePlugin
from locex_transforms.sources.scratch import root_of, scratch
from locex_transforms.sources.table import Table
from locex_transforms.sources.tabular import compared, integers


class TimeseriesConfig(SourceConfig):
    """The table, and how windows lie in it."""

    train: RelativePath = Field(default="train.csv", description="The table: .parquet, else CSV; rows in time's order.")
    test: RelativePath = Field(default="test.csv", description="The table of test rows; see test_fraction.")
    target: str | int = Field(description="The column that y is taken from: a name, or a position from 0.")
    features: list[str | int] | None = Field(
        default=None, min_length=1, description="The columns of x, target among them or not; absent: all but series."
    )
    series: str | int | None = Field(
        default=None, description="The column that tells series apart; no window crosses from one to another."
    )
    window: int = Field(gt=0, description="Rows of a window.")
    stride: int = Field(default=1, gt=0, description="Rows from the start of a window to that of the next.")
    horizon: int = Field(
        default=1, ge=0, description="Rows from a window's last row to the row of its y; 0: that row itself."
    )
    missing: Literal["refuse", "nan"] = Field(
        default="refuse", description="What empty cells of x are: refused, or NaN (for the transformation impute)."
    )
    delimiter: str = Field(default=",", pattern=r'^[^"\r\n]$', description="The character between columns of CSV.")
    header: bool = Field(default=True, description="Whether the first line of CSV names the columns.")

    @model_validator(mode="after")
    def _in_order(self) -> TimeseriesConfig:
        if self.stratify or self.seed is not None:
            raise ValueError("stratify and seed draw rows; series are split in time: test rows are each series' last")
        return self


@dataclass(frozen=True, slots=True)
class Rows:
    """A table's rows, and where what came before must not be looked at: in another series, after a gap."""

    values: Array
    target: Array
    starts: Array


class Windows(BatchedSource):
    """Windows as examples: ``x`` float32 (n, window, features), ``y`` (n,), float32 or, where categorical, int64."""

    def __init__(self, config: TimeseriesConfig, context: SiteContext) -> None:
        super().__init__(config, context)
        self._config = config
        self._by_file = bool(find_file(self._folder, config.test)) or not config.test_fraction

    def files(self) -> list[Path]:
        """Return the one table, or both."""
        names = (self._config.train, self._config.test) if self._by_file else (self._config.train,)
        return [need_file(self._folder, name) for name in names]

    def has_test(self) -> bool:
        """Without a test table `batches` keeps the last rows of each series apart."""
        return True

    def probe(self) -> Dataset:
        """Return no examples, with the shape that the table's columns tell."""
        _, features, _ = self._columns(self._table(self._config.train))
        return Dataset(np.empty((0, self._config.window, len(features)), np.float32), np.empty(0, self._y_type))

    def batches(self, part: str) -> Batches:
        """Return windows; raise `DataUnavailable` where not one fits."""
        config = self._config
        name = config.test if part == "test" and self._by_file else config.train
        with scratch(root_of(self._context)) as folder:
            rows = self._rows(name, folder)
            starts = self._windows(rows, part)
            if not len(starts):
                raise DataUnavailable(
                    f"{name!r} has no {part} rows for a window of {config.window} and a horizon of {config.horizon}",
                    remedy="shorten window or horizon, or add rows",
                )
            within = np.arange(config.window)
            count = rows_of(config.window * rows.values[:1].nbytes)
            for begin in range(0, len(starts), count):
                some = starts[begin : begin + count]
                y = self._typed(rows.target[some + (config.window - 1 + config.horizon)])
                yield rows.values[some[:, None] + within], y

    @property
    def _y_type(self) -> type[np.generic]:
        return np.int64 if self._config.y_kind == "categorical" else np.float32

    def _typed(self, y: Array) -> Array:
        if self._y_type is np.int64 and not integers(y):
            raise DataUnavailable("y_kind is categorical, but targets are no integers", remedy="correct target")
        return y.astype(self._y_type)

    def _windows(self, rows: Rows, part: str) -> Array:
        """Return the first row of every window that stays, with its target, within one stretch of rows."""
        config = self._config
        begins, ends = rows.starts, np.append(rows.starts[1:], len(rows.values))
        if not self._by_file:
            borders = ends - np.round((ends - begins) * config.test_fraction).astype(np.int64)
            begins, ends = (begins, borders) if part == "train" else (borders, ends)
        counts = np.maximum(ends - begins - (config.window + config.horizon) + config.stride, 0) // config.stride
        first = np.repeat(begins, counts)
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        starts: Array = first + number * config.stride
        return starts

    def _rows(self, name: str, folder: Path) -> Rows:
        table = self._table(name)
        starts: list[Array] = []
        values, target = grown(self._read(table, starts), folder, "rows", self._config.limit)
        return Rows(values, target, np.concatenate(starts))

    def _read(self, table: Table, starts: list[Array]) -> Iterator[tuple[Array, Array]]:
        """Return features and targets in batches, and put the rows at which a stretch begins into ``starts``."""
        config = self._config
        target, features, series = self._columns(table)
        filters = {table.columns.position(one.column) for one in config.filters}
        needed = {target, *features, *filters, *([] if series is None else [series])}
        kept, following, previous = 0, True, ""  # following: whether the row before was left out
        for batch in filter(len, table.batches(sorted(needed))):
            mask = chosen(config.filters, len(batch), partial(compared, batch, table.columns))
            names = np.zeros(len(batch), "U1") if series is None else batch.words(series)
            border = names != np.concatenate([[previous], names[:-1]])
            border |= np.concatenate([[following], ~mask[:-1]])
            following, previous = not mask[-1], str(names[-1])
            rows = batch.where(mask)
            starts.append(kept + np.flatnonzero(border[mask]))
            kept += len(rows)
            x = rows.numbers(features, missing=config.missing == "nan").astype(np.float32)
            yield x, rows.numbers([target], missing=False)[:, 0]

    def _columns(self, table: Table) -> tuple[int, list[int], int | None]:
        config, columns = self._config, table.columns
        series = None if config.series is None else columns.position(config.series)
        others = [] if series is None else [series]
        return columns.position(config.target), columns.features(config.features, others), series

    def _table(self, name: str) -> Table:
        path = need_file(self._folder, name)
        if path.suffix.lower() == ".parquet":
            return ParquetTable(path)
        return CsvTable(path, self._config.delimiter, header=self._config.header)


class TimeseriesSource(SourcePlugin):
    """Windows over the rows of a table (``timeseries``)."""

    config_model = TimeseriesConfig
    source = Windows
