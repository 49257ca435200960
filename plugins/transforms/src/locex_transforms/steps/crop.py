"""The transformation ``crop``: a rectangle cut out of every image."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, PositiveInt

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.image import ImageConfig
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideStep


class CropConfig(ImageConfig):
    """Which rectangle."""

    size: list[PositiveInt] = Field(
        min_length=2,
        max_length=2,
        description="Height and width of what stays, in pixels.",
    )
    offset: list[int] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="Row and column of its upper left corner, in pixels; absent: the middle.",
    )


class CropStep(SideStep):
    """Crops ``x``; see `CropConfig`."""

    name = "crop"

    def __init__(self, config: CropConfig) -> None:
        super().__init__()
        self._axes = config.axes
        self._size = config.size
        self._offset = config.offset

    def changed(self, array: Array) -> Array:
        """Return views; nothing is copied."""
        index = [slice(None)] * array.ndim
        for axis, begin, length in self._places(array.shape[1:]):
            index[axis + 1] = slice(begin, begin + length)
        return array[tuple(index)]

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:  # noqa: ARG002 -- the base's signature
        """Return the smaller size; raise `ValueError` for images that do not contain the rectangle."""
        size = list(tensor.size)
        for axis, _, length in self._places(size):
            size[axis] = length
        return tensor.model_copy(update={"size": size})

    def _places(self, sizes: Sequence[int]) -> list[tuple[int, int, int]]:
        places = []
        for number, (axis, length) in enumerate(zip(self._axes, self._size, strict=True)):
            place = self.axis(axis, sizes)
            have = sizes[place]
            begin = (have - length) // 2 if self._offset is None else self._offset[number]
            if begin < 0 or begin + length > have:
                raise ValueError(f"crop to {self._size} at {self._offset or 'the middle'} leaves x of {list(sizes)}")
            places.append((place, begin, length))
        return places


class Crop(StepPlugin):
    """A rectangle of every image (``crop``)."""

    config_model = CropConfig
    step = CropStep
