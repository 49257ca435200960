"""Batches by Poisson sampling, and gradients with noise: what takes the place of a session's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from locex.api import Array
from locex.artefacts.batches import steps_of_an_epoch
from locex.errors import PrivacyRefused
from locex_privacy.accountant import poisson_gaussian_event

if TYPE_CHECKING:
    from locex.schemas.job import TrainConfig

FAULT = "this is a fault in the program that drives the mechanism; report it"


class ClippedGradients(Protocol):
    """A framework's half: gradients of single examples, clipped and summed, one sum for each weight."""

    sizes: Sequence[tuple[int, ...]]
    """Sizes of the weights."""

    def attached(self) -> AbstractContextManager[None]:
        """Have the model ready for `sums` inside."""

    def sums(self, inputs: Any, targets: Any) -> tuple[Any, Any, Sequence[Any]]:
        """Return mean loss, outputs, and sums; an example whose gradient is not finite counts as none."""

    def released(self, sums: Sequence[Any] | None, noise: Sequence[Array], examples: float) -> Sequence[Any]:
        """Return the framework's (sums + noise) / examples; no sums are zeros."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a training samples: each of so many examples takes part in each of the steps with one probability."""

    examples: int
    expected: int
    """Examples expected in a batch."""
    epochs: int
    steps: int
    """Steps of an epoch."""

    @classmethod
    def of(cls, examples: int, config: TrainConfig) -> Sampling:
        """Return the sampling of a round that trains as ``config`` says."""
        expected = min(config.batch_size, examples)
        return cls(examples, expected, config.epochs, steps_of_an_epoch(examples, config))

    @property
    def rate(self) -> float:
        """The probability."""
        return self.expected / self.examples

    def event(self, noise_multiplier: float) -> dict[str, Any]:
        """Return the event of a round for the ledger."""
        return poisson_gaussian_event(noise_multiplier, self.rate, self.epochs * self.steps)


class PrivateGradients:
    """Implements `locex.api.GradientSource`: DP-SGD (Abadi et al. 2016) within the steps that were paid for."""

    def __init__(
        self,
        clipped: ClippedGradients,
        deviation: float,
        normal: Callable[[int], Array],
        choice: Callable[[int, float], Array],
    ) -> None:
        """Add noise of this standard deviation, z · C, to every sum; draw with ``normal`` and ``choice``."""
        self._clipped = clipped
        self._deviation = deviation
        self._normal = normal
        self._choice = choice
        self._sampling: Sampling | None = None
        self._epochs = self._owed = 0

    def pay(self, sampling: Sampling) -> None:
        """Allow one round of steps."""
        self._sampling = sampling
        self._epochs, self._owed = sampling.epochs, 0

    def close(self) -> bool:
        """Allow nothing any more; return whether a whole round of steps was made."""
        whole = self._sampling is not None and self._epochs == 0 and self._owed == 0
        self._sampling = None
        return whole

    def epoch(self, config: TrainConfig) -> Iterator[Array]:
        """Yield the examples of each step; raise `PrivacyRefused` for an epoch that was not charged."""
        sampling = self._sampling
        if sampling is None or not self._epochs or Sampling.of(sampling.examples, config) != sampling:
            raise PrivacyRefused("dp-sgd was asked for steps that were not charged", remedy=FAULT)
        self._epochs -= 1
        with self._clipped.attached():
            for _ in range(sampling.steps):
                self._owed += 1
                yield self._choice(sampling.examples, sampling.rate)

    def gradients(self, inputs: Any, targets: Any) -> tuple[Any, Any, Sequence[Any]]:
        """Return mean loss, outputs and noised gradients of a step."""
        loss, outputs, sums = self._clipped.sums(inputs, targets)
        return loss, outputs, self._released(sums)

    def gradients_of_nothing(self) -> Sequence[Any]:
        """Return noise."""
        return self._released(None)

    def _released(self, sums: Sequence[Any] | None) -> Sequence[Any]:
        if self._sampling is None or self._owed != 1:
            raise PrivacyRefused("dp-sgd was asked for gradients of a step that was not charged", remedy=FAULT)
        self._owed = 0
        noise = [self._noise(size) for size in self._clipped.sizes]
        return self._clipped.released(sums, noise, self._sampling.expected)

    def _noise(self, size: tuple[int, ...]) -> Array:
        count = 1
        for axis in size:
            count *= axis
        return (self._normal(count) * self._deviation).reshape(size)
