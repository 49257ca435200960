"""The transformation ``resize``: images of another size, by weights that are computed once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import Field, PositiveInt

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.image import ImageConfig, rounded
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideStep

VALUES = 2**19
"""Values that are resized at once: their float copies stay in the processor's caches."""
BAND = 32
"""New pixels that are made by one matrix product, of the old ones near them alone."""
EXACT_BITS = 16
"""Integers of up to so many bits are exact in float32."""


class ResizeConfig(ImageConfig):
    """The new size, and how pixels are made of pixels."""

    size: list[PositiveInt] = Field(min_length=2, max_length=2, description="New height and width in pixels.")
    method: Literal["nearest", "bilinear", "bicubic"] = Field(
        default="bilinear", description="nearest, bilinear, or bicubic (a = -0.5)."
    )
    antialias: bool = Field(
        default=True, description="Whether shrinking averages over all pixels, as Pillow does; not for nearest."
    )


class ResizeStep(SideStep):
    """Resizes ``x``; pixel centres stand at half pixels, as in Pillow. See `ResizeConfig`."""

    name = "resize"

    def __init__(self, config: ResizeConfig) -> None:
        super().__init__()
        self._config = config

    def changed(self, array: Array) -> Array:
        """Return a new array of the same type; integers are rounded."""
        axes = [1 + self.axis(axis, array.shape[1:]) for axis in self._config.axes]
        if self._config.method == "nearest":
            for axis, size in zip(axes, self._config.size, strict=True):
                array = np.take(array, _nearest(array.shape[axis], size), axis)
            return array
        return self._weighted(array, axes)

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the new size; raise `ValueError` for what is no image."""
        self.need_numbers(kind, tensor)
        if tensor.dtype == "bool" and self._config.method != "nearest":
            raise ValueError(f"resize of bool x {kind!r} needs the method nearest")
        size = list(tensor.size)
        for axis, new in zip(self._config.axes, self._config.size, strict=True):
            size[self.axis(axis, tensor.size)] = new
        return tensor.model_copy(update={"size": size})

    def _weighted(self, array: Array, axes: Sequence[int]) -> Array:
        # Height and width last: both passes are then matrix products over contiguous memory.
        images = np.moveaxis(array, axes, (-2, -1))
        height, width = images.shape[-2:]
        exact = array.dtype.kind in "iu" and array.dtype.itemsize * 8 <= EXACT_BITS
        dtype = np.dtype(np.float32) if exact else np.result_type(array.dtype, np.float32)
        rows, columns = (
            _weights(have, want, self._config.method, antialias=self._config.antialias).astype(dtype)
            for have, want in zip((height, width), self._config.size, strict=True)
        )
        out = np.empty((*images.shape[:-2], *self._config.size), array.dtype)
        block = max(1, VALUES // max(1, int(np.prod(images.shape[1:]))))
        for begin in range(0, len(images), block):
            part = np.ascontiguousarray(images[begin : begin + block], dtype)
            wide = np.empty((*part.shape[:-1], len(columns)), dtype)
            for new, old in _bands(columns):
                np.matmul(part[..., old], columns[new, old].T, out=wide[..., new])
            high = np.empty((*part.shape[:-2], len(rows), len(columns)), dtype)
            for new, old in _bands(rows):
                np.matmul(rows[new, old], wide[..., old, :], out=high[..., new, :])
            out[begin : begin + block] = rounded(high, array.dtype)
        resized: Array = np.moveaxis(out, (-2, -1), axes)
        return resized


def _nearest(have: int, want: int) -> Array:
    return np.minimum(((np.arange(want) + 0.5) * (have / want)).astype(np.intp), have - 1)


def _weights(have: int, want: int, method: str, *, antialias: bool) -> Array:
    """Return the matrix (want, have) whose rows say which pixels make a new one, and how much of each."""
    scale = have / want
    stretch = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(want) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(have) - centres[:, None]) / stretch
    weights = _triangle(distance) if method == "bilinear" else _cubic(distance)
    normalised: Array = weights / weights.sum(1, keepdims=True)
    return normalised


def _bands(weights: Array) -> Iterator[tuple[slice, slice]]:
    """Return which old pixels some new ones are made of."""
    for begin in range(0, len(weights), BAND):
        new = slice(begin, begin + BAND)
        used = np.flatnonzero(weights[new].any(0))
        yield new, slice(int(used[0]), int(used[-1]) + 1)


def _triangle(distance: Array) -> Array:
    kernel: Array = np.clip(1 - distance, 0, None)
    return kernel


def _cubic(distance: Array) -> Array:
    """Return Keys' kernel, a = -0.5 (IEEE Trans. ASSP 29, 1981)."""
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    kernel: Array = np.where(distance < 1, near, np.where(distance < 2, far, 0))  # noqa: PLR2004 -- the kernel's support
    return kernel


class Resize(StepPlugin):
    """Images of another size (``resize``)."""

    config_model = ResizeConfig
    step = ResizeStep
