"""The data source ``parquet``: tables with types, read by column."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from locex.api import SiteContext
from locex_transforms.sources.folder import RelativePath
from locex_transforms.sources.parquet_table import ParquetTable
from locex_transforms.sources.plugin import SourcePlugin
from locex_transforms.sources.table import Table
from locex_transforms.sources.tabular import TabularConfig, TabularSource


class ParquetConfig(TabularConfig):
    """The files, relative to the data folder."""

    train: RelativePath = Field(default="train.parquet", description="The file of training examples.")
    test: RelativePath = Field(default="test.parquet", description="The file of test examples; see test_fraction.")


class ParquetFiles(TabularSource):
    """The files of one data folder; the format comes from their schema and first rows."""

    def __init__(self, config: ParquetConfig, context: SiteContext) -> None:
        super().__init__(config, config.train, config.test, context)

    def open(self, path: Path) -> Table:
        """Return a file's table."""
        return ParquetTable(path)


class ParquetSource(SourcePlugin):
    """Parquet files of the data folder (``parquet``)."""

    config_model = ParquetConfig
    source = ParquetFiles
