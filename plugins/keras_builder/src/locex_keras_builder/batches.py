"""Which examples each step trains on: groups of batches, the same for the same seed, round and epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from locex.api import Augment, Dataset
from locex.artefacts import batches

if TYPE_CHECKING:
    from locex.api import Array, GradientSource
    from locex.schemas.job import TrainConfig

_SECONDS = 0.1
_BYTES = 32 * 2**20
_MOST = 64


class BatchPlan(batches.BatchPlan["Array"]):
    """The batches of one round, drawn by NumPy."""

    def _shuffled(self, seed: int) -> Array:
        return np.random.default_rng(seed).permutation(self._examples)


class DelegatedPlan(BatchPlan):
    """The batches of one round that another chooses: a privacy mechanism."""

    def __init__(
        self, source: GradientSource, examples: int, config: TrainConfig, *, seed: int, server_round: int
    ) -> None:
        """Take every epoch from ``source``."""
        super().__init__(examples, config, seed=seed, server_round=server_round)
        self._source, self._config = source, config

    def epoch(self, number: int) -> Iterator[Array]:  # noqa: ARG002 -- every epoch is drawn anew
        """Yield the indices of each batch, which may be none."""
        yield from self._source.epoch(self._config)


class Pace:
    """How many batches one call takes: enough that calls cost nothing, and so few that a stop is soon seen."""

    def __init__(self, bytes_per_example: int, *, single: bool = False) -> None:
        """Begin with one batch, and stay there if ``single``."""
        self._bytes = max(bytes_per_example, 1)
        self._most = 1 if single else _MOST
        self._batches = 1

    def batches(self, batch_size: int) -> int:
        """Return the number of batches of the next call."""
        return max(1, min(self._batches, self._most, _BYTES // (self._bytes * max(batch_size, 1))))

    def took(self, batches: int, seconds: float) -> None:
        """Tell how long a call took."""
        if seconds > _SECONDS:
            self._batches = max(1, batches // 2)
        elif seconds < _SECONDS / 2 and batches >= self._batches:
            self._batches = min(2 * self._batches, _MOST)


def grouped(batches: Iterator[Array], limit: Callable[[int], int]) -> Iterator[Array]:
    """Yield indices (batches, examples): so many batches of one size as ``limit`` says for this size."""
    group: list[Array] = []
    for batch in batches:
        if group and len(group[0]) != len(batch):
            yield np.stack(group)
            group = []
        group.append(batch)
        if len(group) >= limit(len(batch)):
            yield np.stack(group)
            group = []
    if group:
        yield np.stack(group)


def in_order(examples: int, batch_size: int) -> Iterator[Array]:
    """Yield the indices of batches from the first example to the last."""
    for start in range(0, examples, batch_size):
        yield np.arange(start, min(start + batch_size, examples))


class Gather:
    """Takes examples by index, of arrays in memory or on disk, as the model takes them."""

    def __init__(self, data: Dataset, dtype: str, targets: Callable[[Array], Array], augment: Augment | None) -> None:
        """Read all targets once; where batches are augmented, these are only checked."""
        self._data, self._dtype, self._targets, self._augment = data, np.dtype(dtype), targets, augment
        self._y = targets(data.y) if len(data) else data.y

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._data)

    def augment_one_by_one(self) -> None:
        """Let no augmentation see two examples at once."""
        self._augment = self._augment and batches.one_by_one(self._augment)

    def __call__(self, index: Array, generator: np.random.Generator | None) -> tuple[Array, Array]:
        """Return inputs and targets, both (batches, examples, …); ``generator`` is for augmentation."""
        if self._augment is None or generator is None:
            return _cast(self._data.x[index], self._dtype), self._y[index]
        parts = [self._augment(Dataset(self._data.x[batch], self._data.y[batch]), generator) for batch in index]
        return (
            np.stack([_cast(part.x, self._dtype) for part in parts]),
            np.stack([self._targets(part.y) for part in parts]),
        )


def _cast(x: Array, dtype: np.dtype[Any]) -> Array:
    return np.asarray(x).astype(dtype, copy=False)
