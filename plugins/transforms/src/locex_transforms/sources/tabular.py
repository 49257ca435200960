"""What sources of tables share: columns become ``x`` and ``y``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from locex.api import Array, Dataset, SiteContext
from locex.errors import DataUnavailable
from locex.schemas.data_format import DataFormat
from locex_transforms.batches import rows_of
from locex_transforms.sources.batched import BatchedSource, Batches
from locex_transforms.sources.columns import Columns
from locex_transforms.sources.filters import Filter, chosen
from locex_transforms.sources.folder import find_file, need_file
from locex_transforms.sources.options import SourceConfig
from locex_transforms.sources.table import Table, TableBatch

EXACT = 2.0**53  # up to here every integer is a float64


class TabularConfig(SourceConfig):
    """The columns."""

    target: list[str | int] = Field(
        min_length=1, description="The column or columns of y: names, or positions from 0 (negative: from the end)."
    )
    features: list[str | int] | None = Field(
        default=None, min_length=1, description="The columns of x, likewise; all that are no target if absent."
    )
    classes: list[str] | None = Field(
        default=None, min_length=1, description="The words of the target column, in the order of their class indices."
    )
    missing: Literal["refuse", "nan"] = Field(
        default="refuse", description="What empty cells of x are: refused, or NaN (for the transformation impute)."
    )
    text_length: int = Field(
        default=1000, gt=0, description="Characters of a text that are kept, where x_kind is text."
    )


class TabularSource(BatchedSource):
    """Rows of a table as examples: ``x`` float32 (n, features) or texts (n,), ``y`` of indices or of numbers."""

    def __init__(self, config: TabularConfig, train: str, test: str, context: SiteContext) -> None:
        super().__init__(config, context)
        self._config = config
        self._names = {"train": train, "test": test}
        self._read: list[str] = []

    @abstractmethod
    def open(self, path: Path) -> Table:
        """Return a file's table."""

    def files(self) -> list[Path]:
        """Return the one file, or both."""
        return [need_file(self._folder, self._names[part]) for part in self.parts()]

    def has_test(self) -> bool:
        """Tell whether the test file exists."""
        if find_file(self._folder, self._names["test"]) is not None:
            return True
        if not self._config.test_fraction:
            need_file(self._folder, self._names["test"])
        return False

    def format(self) -> DataFormat:
        """Return the format, by the file's types, or by all of the targets where text tells none."""
        if self._as_index(self._table("train")) is None:
            return self._described(self._arrays[0])
        return super().format()

    def probe(self) -> Dataset:
        """Return the first rows, with targets as they will be."""
        return self.settle(super().probe(), None)[0]

    def batches(self, part: str) -> Batches:
        """Return ``x``, and ``y`` as float64 until `settle` knows better."""
        config, table = self._config, self._table(part)
        columns = table.columns
        targets = columns.positions(config.target)
        features = columns.features(config.features, targets)
        self._check_alike(part, [columns.names[position] for position in (*features, *targets)])
        needed = {*features, *targets, *(columns.position(one.column) for one in config.filters)}
        words = rows_of(config.text_length * 4) if config.x_kind == "text" else None
        for batch in table.batches(sorted(needed), words):
            rows = batch.where(chosen(config.filters, len(batch), partial(compared, batch, columns)))
            x, y = self._inputs(rows, features), self._targets(rows, targets)
            yield x, y[:, 0] if len(targets) == 1 else y

    def settle(self, train: Dataset, test: Dataset | None) -> tuple[Dataset, Dataset | None]:
        """Return ``y`` as int64 where every target of both files is an integer, else as float32."""
        index = self._as_index(self._table("train"))
        if index is None:
            index = all(integers(part.y) for part in (train, test) if part is not None)
        dtype = np.int64 if index else np.float32
        ours, theirs = (part and Dataset(part.x, np.asarray(part.y).astype(dtype)) for part in (train, test))
        assert ours is not None
        return ours, theirs

    def _as_index(self, table: Table) -> bool | None:
        if self._config.classes is not None:
            return True
        if self._config.y_kind in {"numerical", "categorical"}:
            return self._config.y_kind == "categorical"
        return table.integers(table.columns.positions(self._config.target))

    def _table(self, part: str) -> Table:
        return self.open(need_file(self._folder, self._names[part]))

    def _check_alike(self, part: str, read: list[str]) -> None:
        if part == "train":
            self._read = read
        elif self._read != read:
            raise DataUnavailable(
                f"the columns of {self._names['train']} are {self._read}, those of {self._names['test']} are {read}",
                remedy="write the columns of both files in one order, or list features",
            )

    def _inputs(self, batch: TableBatch, features: Sequence[int]) -> Array:
        if self._config.x_kind != "text":
            return batch.numbers(features, missing=self._config.missing == "nan").astype(np.float32)
        if len(features) != 1:
            raise DataUnavailable(
                f"x_kind is text, but features are {len(features)} columns", remedy="name the one column of texts"
            )
        length = self._config.text_length
        return batch.words(features[0], length).astype(f"U{length}")

    def _targets(self, batch: TableBatch, targets: Sequence[int]) -> Array:
        classes = self._config.classes
        if classes is None:
            values = batch.numbers(targets, missing=False)
            if self._config.y_kind == "categorical" and not integers(values):
                raise DataUnavailable("y_kind is categorical, but targets are no integers", remedy="give classes")
            return values
        found = np.stack([batch.words(target) for target in targets], 1)
        order = np.argsort(np.array(classes))
        ordered = np.array(classes)[order]
        places = np.searchsorted(ordered, found).clip(max=len(classes) - 1)
        unknown = ordered[places] != found
        if unknown.any():
            raise DataUnavailable(
                f"the target {str(found[unknown][0])[:40]!r} is none of the classes {classes[:20]}",
                remedy="correct classes of the data source, or filter such rows out",
            )
        indices: Array = order[places].astype(np.float64)
        return indices


def compared(batch: TableBatch, columns: Columns, one: Filter) -> Array:
    """Return the values of a column that a filter compares."""
    place = columns.position(one.column)
    return batch.words(place) if one.of_words else batch.numbers([place], missing=True)[:, 0]


def integers(values: Array) -> bool:
    """Tell whether floats are whole numbers that are exact."""
    return bool(np.all((np.abs(values) <= EXACT) & (values == np.floor(values))))
