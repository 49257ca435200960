"""The transformation ``random_flip``: some training images mirrored."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.steps.augmentation import RandomStep
from locex_transforms.steps.plugin import StepPlugin


class RandomFlipConfig(PluginConfig):
    """How often, and which way."""

    axis: int = Field(
        default=1, description="The axis within an example that is reversed: 1 mirrors [h, w, …] left to right."
    )
    probability: float = Field(default=0.5, ge=0, le=1, description="Share of the examples that are mirrored.")


class RandomFlipStep(RandomStep):
    """Mirrors some of a batch; see `RandomFlipConfig`."""

    name = "random_flip"

    def __init__(self, config: RandomFlipConfig) -> None:
        super().__init__()
        self._axis, self._probability = config.axis, config.probability

    def drawn(self, x: Array, generator: np.random.Generator) -> Array:
        """Return a copy, some examples reversed along the axis."""
        chosen = generator.random(len(x)) < self._probability
        flipped = x.copy()
        flipped[chosen] = np.flip(x[chosen], self._axis + 1 if self._axis >= 0 else self._axis)
        return flipped

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the format unchanged; any type will do."""
        self.need_axes([self._axis], kind, tensor)
        return tensor


class RandomFlip(StepPlugin):
    """Some training images mirrored (``random_flip``)."""

    config_model = RandomFlipConfig
    step = RandomFlipStep
