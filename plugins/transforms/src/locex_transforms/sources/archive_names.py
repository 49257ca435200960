"""What sources of several arrays in one file share: the file, and the arrays' names in it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from locex.api import SiteContext
from locex_transforms.sources.arrays import ArraysSource
from locex_transforms.sources.folder import need_file
from locex_transforms.sources.options import MIB, SourceConfig

RATIO = 1000
"""How many times its size on the disk an array may have before it counts as a decompression bomb."""
SMALL = 64 * MIB
"""Bytes up to which the ratio does not matter."""


class NamedArraysConfig(SourceConfig):
    """The arrays' names within the file."""

    x_train: str = Field(default="x_train", min_length=1, description="Training inputs, shape (n, …).")
    y_train: str = Field(default="y_train", min_length=1, description="Training targets, shape (n,) or (n, …).")
    x_test: str = Field(default="x_test", min_length=1, description="Test inputs; see test_fraction.")
    y_test: str = Field(default="y_test", min_length=1, description="Test targets; see test_fraction.")

    def names(self, part: str) -> tuple[str, str]:
        """Return the names of ``x`` and ``y`` of ``train`` or ``test``."""
        return (self.x_train, self.y_train) if part == "train" else (self.x_test, self.y_test)


class OneFileSource(ArraysSource):
    """Arrays in one file of the data folder."""

    def __init__(self, config: NamedArraysConfig, file: str, context: SiteContext) -> None:
        super().__init__(config, context)
        self._config = config
        self._file = file

    @property
    def path(self) -> Path:
        """The file; raises `DataUnavailable` where there is none."""
        return need_file(self._folder, self._file)

    def files(self) -> list[Path]:
        """Return the file."""
        return [self.path]


def is_bomb(size: int, stored: int) -> bool:
    """Tell whether ``size`` bytes are too many for ``stored`` bytes on the disk."""
    return size > SMALL and size > RATIO * stored
