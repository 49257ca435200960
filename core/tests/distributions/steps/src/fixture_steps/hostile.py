import os
import time

import numpy as np
from pydantic import Field

from fixture_steps.rows import Source
from locex.api import Dataset, Needs
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class HostileConfig(PluginConfig):
    how: str = Field(description="What it does wrong.")


class Step:
    needs = Needs()

    def __init__(self, how):
        self._how = how

    def transform_data(self, data):  # noqa: PLR0911 -- one answer a fault
        match self._how:
            case "mutate":
                data.x[0] = 0
            case "raise":
                raise KeyError("nothing is right")
            case "exit":
                raise SystemExit(3)
            case "length":
                return Dataset(data.x[1:], data.y)
            case "fewer":
                return Dataset(data.x[1:], data.y[1:])
            case "rank":
                return Dataset(data.x[..., None], data.y)
            case "dtype":
                return Dataset(data.x.astype(np.float16), data.y)
            case "type":
                return data.x
            case "list":
                return Dataset(data.x.tolist(), data.y)
        return data

    def transform_format(self, data_format):
        match self._how:
            case "format":
                return data_format.model_dump()
            case "raise in format":
                raise KeyError("no such kind")
            case "hang":
                time.sleep(600)
            case "die":
                os._exit(5)
        return data_format


class HostileStep:
    """Breaks its contract."""

    @hookimpl
    def locex_config_model(self):
        return HostileConfig

    @hookimpl
    def locex_create_transform(self, config):
        return object() if config.how == "hollow" else Step(config.how)


class Hoarding(Source):
    def __init__(self, folder, how):
        super().__init__(folder)
        self._how = how

    def format(self):
        if self._how == "hoard":
            self._hoard = np.ones(2**27)
            time.sleep(600)
        if self._how == "dictionary":
            return {"x": {}, "y": {}}
        os._exit(7)


class HostileSource:
    """Breaks its contract."""

    @hookimpl
    def locex_config_model(self):
        return HostileConfig

    @hookimpl
    def locex_create_data(self, config, context):
        return Hoarding(context.data_folder, config.how)
