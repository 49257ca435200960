"""The transformation ``random_noise``: Gaussian noise on training inputs."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.steps.augmentation import RandomStep
from locex_transforms.steps.image import rounded
from locex_transforms.steps.plugin import StepPlugin


class RandomNoiseConfig(PluginConfig):
    """How strong. It protects nobody's privacy: that is what privacy mechanisms are for."""

    std: float = Field(default=0.1, ge=0, description="Standard deviation of what is added, in the unit of x.")
    low: float | None = Field(default=None, description="The least value afterwards; absent: no bound.")
    high: float | None = Field(default=None, description="The greatest value afterwards; absent: no bound.")


class RandomNoiseStep(RandomStep):
    """Adds noise to every value of a batch; see `RandomNoiseConfig`."""

    name = "random_noise"

    def __init__(self, config: RandomNoiseConfig) -> None:
        super().__init__()
        self._config = config

    def drawn(self, x: Array, generator: np.random.Generator) -> Array:
        """Return noisy values; integers are rounded and kept within their type."""
        noisy: Array = np.asarray(generator.standard_normal(x.shape, np.float32))
        noisy *= np.float32(self._config.std)
        noisy = noisy + x
        if self._config.low is not None or self._config.high is not None:
            np.clip(noisy, self._config.low, self._config.high, out=noisy)
        return rounded(noisy, x.dtype)

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the format unchanged; raise `ValueError` for words and booleans."""
        self.need_numbers(kind, tensor, "iuf")
        return tensor


class RandomNoise(StepPlugin):
    """Gaussian noise on training inputs (``random_noise``)."""

    config_model = RandomNoiseConfig
    step = RandomNoiseStep
