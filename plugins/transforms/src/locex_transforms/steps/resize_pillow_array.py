"""The transformation ``resize_pillow_array``: ``resize`` as Pillow's ``Image.resize`` does it by default."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from locex_transforms.steps.image import ImageConfig
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.resize import ResizeConfig, ResizeStep


class PillowSizeConfig(ImageConfig):
    """The size in Pillow's order."""

    size: list[PositiveInt] = Field(
        min_length=2,
        max_length=2,
        description="New width and height in pixels (Pillow's order).",
    )


def _step(config: PillowSizeConfig) -> ResizeStep:
    return ResizeStep(ResizeConfig(axes=config.axes, size=config.size[::-1], method="bicubic"))


class ResizePillowArray(StepPlugin):
    """Images of another size, bicubic (``resize_pillow_array``)."""

    config_model = PillowSizeConfig
    step = staticmethod(_step)
