import os

from locex.errors import DataUnavailable
from locex.hookspecs import hookimpl
from locex.schemas.data_format import DataFormat
from locex.schemas.plugin import PluginConfig


class Source:
    def __init__(self, folder):
        self._folder = folder

    def format(self):
        files = len(list(self._folder.iterdir()))
        if not files:
            raise DataUnavailable(f"{self._folder} is empty", remedy="put files there")
        deep = sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file())
        told = {"size": [files], "bytes": deep, "asked": os.getpid()}
        return DataFormat.of({"tabular": told}, {"categorical": {"size": []}})


class Counting:
    """Its format says how many files the data folder has, their bytes at any depth, and which process was asked."""

    @hookimpl
    def locex_config_model(self):
        return PluginConfig

    @hookimpl
    def locex_create_data(self, config, context):
        return Source(context.data_folder)
