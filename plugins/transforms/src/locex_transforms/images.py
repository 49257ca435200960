"""Image files, decoded by Pillow with bounds."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field

from locex.api import Array
from locex.errors import DataUnavailable

ImageMode: TypeAlias = Annotated[
    Literal["L", "RGB", "RGBA"], Field(description="L: grey, size [h, w]; RGB or RGBA: size [h, w, channels].")
]
MaxPixels: TypeAlias = Annotated[int, Field(gt=0, description="Images of more pixels are refused before decoding.")]
MAX_PIXELS = 2**25
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
"""What Pillow may try: decoders of its own libraries; formats that call programs or read other files are left out."""


def channels_of(mode: str) -> tuple[int, ...]:
    """Return the axis of channels that images of a mode have, if any."""
    return () if mode == "L" else (len(mode),)


def decode(content: bytes | Path, mode: ImageMode, size: tuple[int, int] | None, max_pixels: int) -> Array:
    """Return uint8 of shape (h, w) or (h, w, channels), the first frame of an animation.

    ``size``: height and width to resize to (bilinear, averaging); None: as it is. Raise `DataUnavailable` for what is
    no image, or one of more than ``max_pixels``, which is told from the header, before anything is decoded.
    """
    from PIL import Image

    with _opened(content) as image:
        if image.width * image.height > max_pixels:
            raise DataUnavailable(
                f"an image of {image.width} x {image.height} pixels has more than {max_pixels}",
                remedy="shrink it, or raise max_pixels",
            )
        if size is not None:
            image.draft(mode, size[::-1])  # JPEG: decodes at a fraction of the size where that is enough
        converted = image.convert(mode)
        if size is not None and converted.size != size[::-1]:
            converted = converted.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.asarray(converted)


def header(path: Path) -> tuple[int, int]:
    """Return height and width without decoding; raise `DataUnavailable` for what is no image."""
    with _opened(path) as image:
        return image.height, image.width


@contextmanager
def _opened(content: bytes | Path) -> Iterator[Any]:
    """Open an image by its header; what is wrong with it, then or when it is decoded, is `DataUnavailable`."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `decode` has a bound of its own
            opened = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS)
        with opened as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataUnavailable(f"not an image that can be read: {error}", remedy="write PNG or JPEG") from error
