"""The transformation ``rescale_values_to_milli_gi``: accelerations in g become milli-g."""

from __future__ import annotations

from pydantic import Field

from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.rescale import RescaleConfig, RescaleStep


class MilliGConfig(RescaleConfig):
    """The unit that comes in."""

    scale: float = Field(default=1000.0, description="Milli-g per unit that comes in: 1000 for g, 101.97 for m/s².")


class RescaleValuesToMilliGi(StepPlugin):
    """Accelerations as milli-g, in float32 (``rescale_values_to_milli_gi``)."""

    config_model = MilliGConfig
    step = RescaleStep
