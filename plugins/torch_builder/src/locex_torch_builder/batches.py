"""Which examples each step trains on: indices, the same for the same seed, round and epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from locex.artefacts import batches
from locex.artefacts.batches import derived_seed

if TYPE_CHECKING:
    from locex.api import GradientSource
    from locex.schemas.job import TrainConfig


class BatchPlan(batches.BatchPlan[Tensor]):
    """The batches of one round, drawn by PyTorch, and the draws that augment them."""

    def _shuffled(self, seed: int) -> Tensor:
        return torch.randperm(self._examples, generator=torch.Generator().manual_seed(seed))

    def generator(self, epoch: int, step: int) -> np.random.Generator:
        """Return the generator of the draws that augment the batch of a step of an epoch."""
        return np.random.default_rng((*self._seeds, epoch, step))


class DelegatedPlan(BatchPlan):
    """The batches of one round that another chooses: a privacy mechanism."""

    def __init__(
        self, source: GradientSource, examples: int, config: TrainConfig, *, seed: int, server_round: int
    ) -> None:
        """Take every epoch from ``source``."""
        super().__init__(examples, config, seed=seed, server_round=server_round)
        self._source, self._config = source, config

    def epoch(self, number: int) -> Iterator[Tensor]:  # noqa: ARG002 -- every epoch is drawn anew
        """Yield the indices of each batch, which may be none."""
        for index in self._source.epoch(self._config):
            yield torch.from_numpy(index)


@contextmanager
def seeded(device: torch.device, *parts: int) -> Iterator[None]:
    """Draw (dropout …) from a seed inside; the global generators go on afterwards as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derived_seed(*parts))
        yield


@contextmanager
def unforeseeable(device: torch.device) -> Iterator[None]:
    """Draw inside from a seed of the operating system's entropy, which nobody can know."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.seed()
        yield
