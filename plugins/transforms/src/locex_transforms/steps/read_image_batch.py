"""The transformation ``read_image_batch``: encoded images (PNG, JPEG, …) become arrays."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np
from pydantic import Field, PositiveInt

from locex.api import Array, Needs
from locex.errors import DataUnavailable
from locex.schemas.data_format import TensorFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.images import MAX_PIXELS, ImageMode, MaxPixels, channels_of, decode
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideStep


class ReadImageBatchConfig(PluginConfig):
    """What images become."""

    size: list[PositiveInt] = Field(
        min_length=2,
        max_length=2,
        description="Height and width in pixels that images become.",
    )
    mode: ImageMode = "RGB"
    max_pixels: MaxPixels = MAX_PIXELS


class ReadImageBatchStep(SideStep):
    """Decodes ``x``, one file's bytes (or their base64 text) per example."""

    needs = Needs(libraries=("PIL",))
    name = "read_image_batch"

    def __init__(self, config: ReadImageBatchConfig) -> None:
        super().__init__()
        self._config = config

    def changed(self, array: Array) -> Array:
        """Return uint8 images; raise `ValueError` naming the example that is none."""
        if array.dtype.kind not in "USO" or array.ndim != 1:
            raise ValueError(f"read_image_batch needs encoded images of shape (n,), got {array.dtype} {array.shape}")
        config = self._config
        height, width = config.size
        images = np.empty((len(array), height, width, *channels_of(config.mode)), np.uint8)
        for number, content in enumerate(array.tolist()):
            try:
                images[number] = decode(_bytes(content), config.mode, (height, width), config.max_pixels)
            except (DataUnavailable, binascii.Error) as error:
                raise ValueError(f"read_image_batch, example {number}: {error}") from None
        return images

    def kinds(self, given: dict[str, TensorFormat]) -> dict[str, TensorFormat]:
        """Return ``image``."""
        return {"image": self.formed(*self.one_kind(given))}

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the size of images; raise `ValueError` for what is no file's content."""
        if tensor.size or (tensor.dtype is not None and np.dtype(tensor.dtype).kind not in "USO"):
            raise ValueError(
                f"read_image_batch needs encoded images, but x {kind!r} has size {tensor.size}, dtype {tensor.dtype}"
            )
        size = [*self._config.size, *channels_of(self._config.mode)]
        return tensor.model_copy(update={"size": size, "dtype": "uint8"})


def _bytes(content: Any) -> bytes:
    return base64.b64decode(content, validate=True) if isinstance(content, str) else bytes(content)


class ReadImageBatch(StepPlugin):
    """Encoded images as arrays (``read_image_batch``)."""

    config_model = ReadImageBatchConfig
    step = ReadImageBatchStep
