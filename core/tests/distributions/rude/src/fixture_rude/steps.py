"""Steps that load well and behave badly, each in its own way."""

import os
import time

import numpy as np

from locex.api import Dataset, Needs
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class Rude:
    """A plugin that is its own step."""

    needs = Needs()

    @hookimpl
    def locex_config_model(self):
        return PluginConfig

    @hookimpl
    def locex_create_transform(self, config):
        return self

    def transform_format(self, data_format):
        return data_format

    def transform_data(self, data):
        return data


class Mutating(Rude):
    def transform_data(self, data):
        data.x[...] = 0
        return data


class WrongRank(Rude):
    def transform_data(self, data):
        return Dataset(data.x[:, None], data.y)


class RowMixing(Rude):
    def transform_data(self, data):
        return Dataset((data.x - data.x.mean(0)).astype(data.x.dtype), data.y)


class Dropping(Rude):
    def transform_data(self, data):
        return Dataset(data.x[1:], data.y[1:])


class Fickle(Rude):
    def transform_data(self, data):
        return Dataset((data.x + np.random.default_rng().integers(1, 100)).astype(data.x.dtype), data.y)


class Rewriting(Rude):
    def transform_format(self, data_format):
        data_format.x.data_types["more"] = next(iter(data_format.x.data_types.values()))
        return data_format


class Quitting(Rude):
    def transform_data(self, data):
        os._exit(7)


class Lingering(Rude):
    def transform_data(self, data):
        time.sleep(600)


class Forking(Rude):
    def transform_data(self, data):
        if os.fork() == 0:
            time.sleep(600)
        return data


class Hoarding(Rude):
    def transform_data(self, data):
        hoard = []
        while True:
            hoard.append(np.ones(2**24))


class UndescribedConfig(PluginConfig):
    secret: int = 1


class Undescribed(Rude):
    @hookimpl
    def locex_config_model(self):
        return UndescribedConfig
