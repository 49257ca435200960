"""The transformation ``random_rotation``: training images turned by random angles."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.augmentation import RandomStep
from locex_transforms.steps.image import ImageConfig, rounded
from locex_transforms.steps.plugin import StepPlugin


class RandomRotationConfig(ImageConfig):
    """How far."""

    degrees: float = Field(
        default=15.0, ge=0, le=180, description="Angles are drawn evenly from ±degrees, counterclockwise."
    )
    fill: float = Field(default=0.0, description="The value of corners that no pixel reaches.")


class RandomRotationStep(RandomStep):
    """Turns every image of a batch about its middle, bilinearly; see `RandomRotationConfig`."""

    name = "random_rotation"

    def __init__(self, config: RandomRotationConfig) -> None:
        super().__init__()
        self._axes, self._degrees, self._fill = config.axes, config.degrees, config.fill

    def drawn(self, x: Array, generator: np.random.Generator) -> Array:
        """Return turned images; integers are rounded."""
        angles = np.deg2rad(generator.uniform(-self._degrees, self._degrees, len(x))).astype(np.float32)
        axes = [axis + 1 if axis >= 0 else axis for axis in self._axes]
        images = np.moveaxis(x, axes, (1, 2))
        dtype = np.result_type(x.dtype, np.float32)
        turned = _rotated(images.astype(dtype), angles, dtype.type(self._fill))
        return np.ascontiguousarray(np.moveaxis(rounded(turned, x.dtype), (1, 2), axes))

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the format unchanged; raise `ValueError` for words and booleans."""
        self.need_axes(self._axes, kind, tensor)
        self.need_numbers(kind, tensor, "iuf")
        return tensor


def _rotated(images: Array, angles: Array, fill: np.generic) -> Array:
    """Return images (n, h, w, …) turned: each new pixel looks up where it came from, between four old ones."""
    height, width = images.shape[1:3]
    down = np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2
    right = np.arange(width, dtype=np.float32)[None, :] - (width - 1) / 2
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    rows = cos * down + sin * right + (height - 1) / 2
    columns = cos * right - sin * down + (width - 1) / 2
    top, left = np.floor(rows), np.floor(columns)
    weights = [(rows - top), (columns - left)]
    which = np.arange(len(images))[:, None, None]
    out = np.zeros_like(images)
    more = (1,) * (images.ndim - 3)
    for lower in (0, 1):
        for righter in (0, 1):
            y, x = (top + lower).astype(np.intp), (left + righter).astype(np.intp)
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            pixels = images[which, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
            pixels = np.where(inside.reshape(*inside.shape, *more), pixels, fill)
            share = (weights[0] if lower else 1 - weights[0]) * (weights[1] if righter else 1 - weights[1])
            out += pixels * share.reshape(*share.shape, *more).astype(images.dtype)
    return out


class RandomRotation(StepPlugin):
    """Training images turned by random angles (``random_rotation``)."""

    config_model = RandomRotationConfig
    step = RandomRotationStep
