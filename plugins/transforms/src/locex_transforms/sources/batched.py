"""What sources share that read their files in batches: collect, split, bound memory, tell the format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path

from locex.api import Array, Dataset, LocalData, SiteContext
from locex.errors import DataUnavailable
from locex.schemas.data_format import DataFormat
from locex_transforms.batches import rows_of
from locex_transforms.sources.conversion import Conversion, Pair, state_of
from locex_transforms.sources.examples import check_alike, check_examples, describe
from locex_transforms.sources.growing import grown, picked
from locex_transforms.sources.options import SourceConfig, hold_against
from locex_transforms.sources.splitting import test_rows

Batches = Iterator[tuple[Array, Array]]


class BatchedSource(ABC):
    """A data source that yields ``x`` and ``y`` in batches of one shape and type."""

    version = 1
    """Changes when the same files give other arrays than before."""

    def __init__(self, config: SourceConfig, context: SiteContext) -> None:
        self._options = config
        self._context = context
        self._folder = context.data_folder
        self._seed = context.seed if config.seed is None else config.seed

    @abstractmethod
    def files(self) -> list[Path]:
        """Return every file that is read; raise `DataUnavailable` where one is missing."""

    @abstractmethod
    def batches(self, part: str) -> Batches:
        """Return the batches of ``train`` or ``test``, filtered; empty ones too."""

    @abstractmethod
    def has_test(self) -> bool:
        """Tell whether there are test files; raise `DataUnavailable` where they must exist and do not."""

    def parts(self) -> tuple[str, ...]:
        """Return which of ``train`` and ``test`` have files of their own."""
        return ("train", "test") if self.has_test() else ("train",)

    def probe(self) -> Dataset:
        """Return some examples, or none, that have the shapes and types of all."""
        with closing(self.batches("train")) as batches:  # type: ignore[type-var]  # generators, all of them
            for x, y in batches:
                return Dataset(x, y)
        raise DataUnavailable("there are no examples", remedy="add examples to the files")

    def settle(self, train: Dataset, test: Dataset | None) -> tuple[Dataset, Dataset | None]:
        """Return the data as they are to be, once all of them were seen."""
        return train, test

    def split_rows(self, y: Array) -> Array:
        """Return which of the training examples become test data."""
        options = self._options
        return test_rows(y, options.test_fraction, self._seed, stratify=options.stratify)

    def format(self) -> DataFormat:
        """Return the format, from the first examples."""
        return self._described(self.probe())

    def load(self) -> LocalData:
        """Return the data: in memory up to ``in_memory`` per array, else memory-mapped read-only."""
        train, test = self._arrays
        return LocalData(train, test, self._described(train))

    def state(self) -> str:
        """Return a text that changes when the files do."""
        return state_of(self.files())

    @cached_property
    def _arrays(self) -> Pair:
        what = [type(self).__name__, self.version, self._options.model_dump(mode="json"), self._seed]
        conversion = Conversion(what, self.files(), self._context)
        return conversion.find() or conversion.make(self._build)

    def _build(self, folder: Path) -> Pair:
        options = self._options
        by_file = self.has_test()
        train = self._collected("train", folder, "train" if by_file else "all")
        test = self._collected("test", folder, "test") if by_file else None
        train, test = self.settle(train, test)
        if test is not None:
            check_alike(train, test, "training and test files")
            return train, test
        mask = self.split_rows(train.y)
        rows = rows_of(train.x[:1].nbytes + train.y[:1].nbytes)
        parts = (
            Dataset(*grown(picked(train.x, train.y, side, rows), folder, name, options.limit))
            for name, side in (("train", ~mask), ("test", mask))
        )
        return next(parts), next(parts)

    def _collected(self, part: str, folder: Path, name: str) -> Dataset:
        data = Dataset(*grown(self.batches(part), folder, name, self._options.limit))
        check_examples(data, f"the {part} data")
        return data

    def _described(self, data: Dataset) -> DataFormat:
        found = describe(data, self._options.x_kind, self._options.y_kind)
        return hold_against(found, self._options.format)
