"""The data source ``image_folder``: a folder of image files for every class, decoded by Pillow."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from locex.api import Array, Dataset, SiteContext
from locex.errors import DataUnavailable
from locex_transforms.batches import rows_of
from locex_transforms.images import MAX_PIXELS, ImageMode, MaxPixels, channels_of, decode, header
from locex_transforms.sources.batched import BatchedSource, Batches
from locex_transforms.sources.filters import Filter, chosen
from locex_transforms.sources.folder import RelativePath, find_folder, need_folder
from locex_transforms.sources.options import SourceConfig
from locex_transforms.sources.plugin import SourcePlugin

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"})


class ImageFolderConfig(SourceConfig):
    """The folders, relative to the data folder, and what images become."""

    train: RelativePath = Field(default="train", description="The folder of training images: one folder per class.")
    test: RelativePath = Field(default="test", description="The folder of test images, likewise; see test_fraction.")
    classes: list[Annotated[RelativePath, Field(pattern="^[^./][^/]*$")]] | None = Field(
        default=None,
        min_length=1,
        description="Folders in the order of their class indices; absent: those that exist, sorted. "
        "Give them where sites hold different classes.",
    )
    size: list[PositiveInt] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="Height and width in pixels that images become; absent: all have the first one's.",
    )
    mode: ImageMode = "RGB"
    max_pixels: MaxPixels = MAX_PIXELS


class ImageFolders(BatchedSource):
    """Images as uint8, class indices as int64."""

    def __init__(self, config: ImageFolderConfig, context: SiteContext) -> None:
        super().__init__(config, context)
        self._config = config

    def files(self) -> list[Path]:
        """Return every image file."""
        return [path for part in self.parts() for path in self._listed(part)[0]]

    def has_test(self) -> bool:
        """Tell whether the test folder exists."""
        return not self._config.test_fraction or find_folder(self._folder, self._config.test) is not None

    def probe(self) -> Dataset:
        """Return no examples, with the shape that the first image has, or all of them get."""
        return Dataset(np.empty((0, *self._shape), np.uint8), np.empty(0, np.int64))

    def batches(self, part: str) -> Batches:
        """Return decoded images; raise `DataUnavailable` naming the file that is none."""
        paths, indices = self._listed(part)
        rows = rows_of(int(np.prod(self._shape)))
        for begin in range(0, len(paths), rows):
            batch = paths[begin : begin + rows]
            x = np.empty((len(batch), *self._shape), np.uint8)
            for number, path in enumerate(batch):
                x[number] = self._decoded(path)
            yield x, indices[begin : begin + rows]

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        size = self._config.size
        if size is None:
            paths, _ = self._listed("train")
            if not paths:
                raise DataUnavailable(f"there are no images in {self._config.train!r}", remedy="add PNG or JPEG files")
            size = list(header(paths[0]))
        return (*size, *channels_of(self._config.mode))

    def _decoded(self, path: Path) -> Array:
        config = self._config
        try:
            size = None if config.size is None else (config.size[0], config.size[1])
            image = decode(path, config.mode, size, config.max_pixels)
        except DataUnavailable as error:
            name = path.relative_to(self._folder)
            raise DataUnavailable(f"{str(name)!r}: {error.message}", remedy=error.remedy) from error
        if image.shape != self._shape:
            raise DataUnavailable(
                f"{str(path.relative_to(self._folder))!r} has shape {image.shape}, the first image {self._shape}",
                remedy="give the size that all images become",
            )
        return image

    def _listed(self, part: str) -> tuple[list[Path], Array]:
        """Return the files of all classes, by name, and their class indices; filtered."""
        top = self._config.train if part == "train" else self._config.test
        root = need_folder(self._folder, top)
        by_class = [(index, path) for index, name in enumerate(self._classes) for path in self._images(root, top, name)]
        indices = np.array([index for index, _ in by_class], np.int64)
        words = np.array(self._classes)[indices] if len(indices) else np.array([], np.str_)
        mask = chosen(self._config.filters, len(indices), lambda one: _compared(one, words, indices))
        return [path for (_, path), stays in zip(by_class, mask.tolist(), strict=True) if stays], indices[mask]

    @cached_property
    def _classes(self) -> list[str]:
        if self._config.classes is not None:
            return self._config.classes
        root = need_folder(self._folder, self._config.train)
        return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))

    def _images(self, root: Path, top: str, name: str) -> list[Path]:
        if find_folder(self._folder, f"{top}/{name}") is None:
            return []
        found = []
        for place, folders, files in os.walk(root / name):
            folders.sort()
            found += [Path(place, file) for file in sorted(files) if Path(file).suffix.lower() in SUFFIXES]
        inside = self._folder.resolve()
        for path in found:
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise DataUnavailable(
                    f"{str(path.relative_to(self._folder))!r} leads out of the data folder",
                    remedy="put the file itself into the folder",
                )
        return found


def _compared(one: Filter, words: Array, indices: Array) -> Array:
    if one.column == "class":
        return words
    if one.column == "y":
        return indices
    raise DataUnavailable(f"there is no {one.column!r} to filter by", remedy="filter images by class, or by y")


class ImageFolderSource(SourcePlugin):
    """Image files of the data folder, a folder per class (``image_folder``)."""

    config_model = ImageFolderConfig
    source = ImageFolders
