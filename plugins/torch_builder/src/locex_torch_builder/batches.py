"""Which examples each step trains on: indices, the same for the same seed, round and epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from locex.schemas.job import TrainConfig


class BatchPlan:
    """The batches of one round.

    Every pass over the data has an order of its own. ``steps_per_epoch`` cuts epochs short; the next epoch of the
    round goes on where the last one ended. An epoch never has more steps than the data gives.
    """

    def __init__(self, examples: int, config: TrainConfig, *, seed: int, server_round: int) -> None:
        """Plan for so many examples."""
        self._examples = examples
        self._batch_size = config.batch_size
        self._passes = math.ceil(examples / config.batch_size)
        self._seeds = (seed, server_round)
        self._order = torch.empty(0, dtype=torch.int64)
        self.steps = min(config.steps_per_epoch or self._passes, self._passes)

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Yield the indices of each batch of an epoch, counted from 0; epochs are asked for in order."""
        for step in range(number * self.steps, (number + 1) * self.steps):
            repetition, position = divmod(step, self._passes)
            if position == 0:
                generator = torch.Generator().manual_seed(derived_seed(*self._seeds, repetition))
                self._order = torch.randperm(self._examples, generator=generator)
            yield self._order[position * self._batch_size : (position + 1) * self._batch_size]

    def generator(self, epoch: int, step: int) -> np.random.Generator:
        """Return the generator of the draws that augment the batch of a step of an epoch."""
        return np.random.default_rng((*self._seeds, epoch, step))


def derived_seed(*parts: int) -> int:
    """Return a seed that differs wherever one of the parts does."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint32)[0])


@contextmanager
def seeded(device: torch.device, *parts: int) -> Iterator[None]:
    """Draw (dropout …) from a seed inside; the global generators go on afterwards as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derived_seed(*parts))
        yield
