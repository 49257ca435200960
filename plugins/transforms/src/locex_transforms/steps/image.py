"""What steps on images share: where height and width stand."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field, field_validator

from locex.api import Array
from locex.schemas.plugin import PluginConfig


class ImageConfig(PluginConfig):
    """The axes of an image."""

    axes: list[int] = Field(
        default=[0, 1],
        min_length=2,
        max_length=2,
        description="The axes of height and width within an example; [1, 2] where channels stand first.",
    )

    @field_validator("axes")
    @classmethod
    def _two(cls, value: list[int]) -> list[int]:
        if value[0] == value[1]:
            raise ValueError("height and width need different axes")
        return value


def rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return floats in another type: rounded and bounded where it holds integers."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        np.clip(np.rint(values, out=values), limits.min, limits.max, out=values)
    return values.astype(dtype, copy=False)
