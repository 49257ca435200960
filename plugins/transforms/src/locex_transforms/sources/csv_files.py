"""The data source ``csv``: tables as text."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from locex.api import SiteContext
from locex_transforms.sources.csv_table import CsvTable
from locex_transforms.sources.folder import RelativePath
from locex_transforms.sources.plugin import SourcePlugin
from locex_transforms.sources.table import Table
from locex_transforms.sources.tabular import TabularConfig, TabularSource


class CsvConfig(TabularConfig):
    """The files, relative to the data folder, and how they are written."""

    train: RelativePath = Field(default="train.csv", description="The file of training examples.")
    test: RelativePath = Field(default="test.csv", description="The file of test examples; see test_fraction.")
    delimiter: str = Field(default=",", pattern=r'^[^"\r\n]$', description="The character between columns.")
    header: bool = Field(default=True, description="Whether the first line names the columns.")


class CsvFiles(TabularSource):
    """The files of one data folder; text tells no types, so that even the format may take a first reading."""

    def __init__(self, config: CsvConfig, context: SiteContext) -> None:
        super().__init__(config, config.train, config.test, context)
        self._dialect = (config.delimiter, config.header)

    def open(self, path: Path) -> Table:
        """Return a file's table."""
        delimiter, header = self._dialect
        return CsvTable(path, delimiter, header=header)


class CsvSource(SourcePlugin):
    """CSV files of the data folder (``csv``)."""

    config_model = CsvConfig
    source = CsvFiles
