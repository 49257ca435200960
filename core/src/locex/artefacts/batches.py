"""Which examples each step trains on: indices, the same for the same seed, round and epoch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from locex.api import Augment, Dataset

if TYPE_CHECKING:
    from locex.schemas.job import TrainConfig

Indices = TypeVar("Indices")
"""A framework's one-dimensional array of indices."""


class BatchPlan(ABC, Generic[Indices]):
    """The batches of one round.

    Every pass over the data has an order of its own. ``steps_per_epoch`` cuts epochs short; the next epoch of the
    round goes on where the last one ended. An epoch never has more steps than the data gives.
    """

    def __init__(self, examples: int, config: TrainConfig, *, seed: int, server_round: int) -> None:
        """Plan for so many examples."""
        self._examples = examples
        self._batch_size = config.batch_size
        self._passes = steps_of_a_pass(examples, config)
        self._seeds = (seed, server_round)
        self._order: Any = ()
        self.steps = steps_of_an_epoch(examples, config)

    def epoch(self, number: int) -> Iterator[Indices]:
        """Yield the indices of each batch of an epoch, counted from 0; epochs are asked for in order."""
        for step in range(number * self.steps, (number + 1) * self.steps):
            repetition, position = divmod(step, self._passes)
            if position == 0:
                self._order = self._shuffled(derived_seed(*self._seeds, repetition))
            yield self._order[position * self._batch_size : (position + 1) * self._batch_size]

    @abstractmethod
    def _shuffled(self, seed: int) -> Indices:
        """Return the indices of all examples in an order drawn from ``seed`` (32 bits)."""


def steps_of_a_pass(examples: int, config: TrainConfig) -> int:
    """Return how many batches all examples are."""
    return math.ceil(examples / config.batch_size)


def steps_of_an_epoch(examples: int, config: TrainConfig) -> int:
    """Return how many steps an epoch has: no more than ``steps_per_epoch``, or than the data gives."""
    passes = steps_of_a_pass(examples, config)
    return min(config.steps_per_epoch or passes, passes)


def one_by_one(augment: Augment) -> Augment:
    """Return an augmentation that is given one example at a time: none of them can reach another.

    Each has draws of its own, of the operating system's entropy. Those of a generator that all share, of a seed that
    somebody knows, would tell by how far an example shifts the draws of those behind it.
    """

    def augmented(batch: Dataset, generator: np.random.Generator) -> Dataset:  # noqa: ARG001 -- see above
        if not len(batch):
            return batch
        ones = [
            augment(Dataset(batch.x[i : i + 1], batch.y[i : i + 1]), np.random.default_rng()) for i in range(len(batch))
        ]
        return Dataset(np.concatenate([one.x for one in ones]), np.concatenate([one.y for one in ones]))

    return augmented


def derived_seed(*parts: int) -> int:
    """Return a seed (32 bits) that differs wherever one of the parts does."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint32)[0])
