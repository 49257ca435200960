"""What architectures of every library take alike: the number of output units."""

from __future__ import annotations

from pydantic import Field, model_validator

from locex.schemas.job import Positive
from locex.schemas.plugin import PluginConfig


class OutputConfig(PluginConfig):
    """The output units: as many as classes, unless ``outputs`` says otherwise."""

    num_classes: int | None = Field(default=None, ge=2, description="Classes; one output unit (logit) for each.")
    outputs: Positive | None = Field(
        default=None, description="Output units, for regression, or 1 for two classes with a binary loss."
    )

    @model_validator(mode="after")
    def _agree(self) -> OutputConfig:
        if self.num_classes is None and self.outputs is None:
            raise ValueError("num_classes or outputs must be given")
        given = (self.num_classes, self.outputs)
        if None not in given and given != (2, 1) and self.num_classes != self.outputs:
            raise ValueError("outputs must equal num_classes, or be 1 where num_classes is 2")
        return self

    @property
    def units(self) -> int:
        """The number of output units."""
        return self.outputs or self.num_classes or 0
