"""Data through the steps of a pipeline, a piece at a time: memory is bounded however many examples there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import IO

import numpy as np

from locex.api import Array, Dataset, Stopped
from locex.errors import StepFailed, StoreUnavailable
from locex.pipelines.steps import Step, fit, transformed
from locex.schemas.data_format import DataFormat
from locex.worker.rows import Rows, rows_within

_PIECE_ROWS = 8192
_PIECE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Steps, with the format after each of them."""

    steps: Sequence[Step]
    forms: Sequence[DataFormat]

    def between(self, begin: int, end: int | None = None) -> Pipeline:
        """Return a part of the pipeline."""
        return Pipeline(self.steps[begin:end], self.forms[begin:end])

    @property
    def fixed(self) -> int:
        """How many steps stand before the first that draws."""
        return next((position for position, step in enumerate(self.steps) if step.random), len(self.steps))


@dataclass(frozen=True, slots=True)
class Passes:
    """Passes of data through steps; results too large for memory go to files that ``open_file`` opens."""

    open_file: Callable[[], IO[bytes]]
    should_stop: Callable[[], bool] = lambda: False

    def learn(
        self, train: Dataset, pipeline: Pipeline, generator: np.random.Generator | None = None
    ) -> tuple[Dataset, int]:
        """Let every step that learns see the training data as they are before it.

        Return the data as they are before the last of these steps, and its position: what follows is still to be done.
        """
        begin = 0
        for position, step in enumerate(pipeline.steps):
            if step.learns:
                train = self.through(train, pipeline.between(begin, position), generator)
                fit(step, train)
                begin = position
        return train, begin

    def through(self, data: Dataset, pipeline: Pipeline, generator: np.random.Generator | None = None) -> Dataset:
        """Return data after all steps of a pipeline; steps that draw do so from ``generator``."""
        if not pipeline.steps:
            return data
        last = pipeline.steps[-1]
        rows = min(_PIECE_ROWS, rows_within(data.x, _PIECE_BYTES))
        with closing(Rows(self.open_file)) as x, closing(Rows(self.open_file)) as y:
            for begin in range(0, max(len(data), 1), rows):  # no data at all is one piece: it has a size and a type too
                if self.should_stop():
                    raise Stopped
                piece = Dataset(data.x[begin : begin + rows], data.y[begin : begin + rows])
                for step, form in zip(pipeline.steps, pipeline.forms, strict=True):
                    piece = transformed(step, piece, form, generator)
                _append(x, piece.x, last)
                _append(y, piece.y, last)
            return Dataset(x.finish(), y.finish())


def _append(rows: Rows, piece: Array, last: Step) -> None:
    try:
        rows.append(piece)
    except ValueError as error:
        raise StepFailed(last.label, f"does not give all pieces alike: {error}") from error
    except OSError as error:
        raise StoreUnavailable(
            f"prepared data cannot be written: {error.strerror or error}", remedy="make room on that disk"
        ) from error
