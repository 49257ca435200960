"""An inferencer and steps of a third party: what they do is told by the numbers that they are given."""

from __future__ import annotations

import ctypes
import os
import sys
import time

import numpy as np

from locex.api import Dataset, Needs, TensorInfo
from locex.errors import InvalidModel
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig

HANG, CRASH, RAISE, GROW, SEGFAULT = 1000, 1001, 1002, 1003, 1004


class AcmeConfig(PluginConfig):
    """Nothing to choose."""


class Model:
    inputs = (TensorInfo("x", "FP32", (-1, 2)),)
    outputs = (TensorInfo("y", "FP32", (-1, 2)),)

    def __init__(self, content):
        self._factor = float(content)

    def run(self, inputs, outputs):
        x = inputs["x"]
        first = x.flat[0] if x.size else 0
        print("a plugin that prints")
        if first == HANG:
            time.sleep(1000)
        if first == CRASH:
            os._exit(7)
        if first == RAISE:
            raise ZeroDivisionError("a model's own fault")
        if first == GROW:
            np.ones(2**33, np.uint8)
        if first == SEGFAULT:
            ctypes.string_at(0)
        return {"y": x * self._factor}

    def close(self):
        pass


class Acme:
    formats = (".acme",)

    @hookimpl
    def locex_config_model(self):
        return AcmeConfig

    @hookimpl
    def locex_create_inferencer(self, config, context):
        content = context.artefact.path.read_text()
        if content == "crash":
            sys.stderr.write("the last words\n")
            os._exit(9)
        if content == "hang":
            time.sleep(1000)
        if content == "greedy":
            np.ones(2**33, np.uint8)
        if not content.replace(".", "").isdigit():
            raise InvalidModel("the artefact is no number", remedy="write one")
        return Model(content)


class Rival(Acme):
    formats = (".rival", ".both")

    @hookimpl
    def locex_config_model(self):
        return AcmeConfig


class Step:
    needs = Needs()

    def __init__(self, config):
        self._config = config

    def transform_data(self, data):
        return data

    def transform_format(self, data_format):
        return data_format


class RememberStep(Step):
    def transform_request(self, data, values):
        values["acme.largest"] = np.abs(data.x).max(1, keepdims=True)
        return Dataset(data.x / values["acme.largest"], data.y)


class RestoreStep(Step):
    def transform_request(self, data, values):
        return Dataset(data.x * values.get("acme.largest", np.float32(1)), data.y)


class LearnStep(Step):
    def fit(self, train):
        pass


class Plugin:
    step: type

    @hookimpl
    def locex_config_model(self):
        return AcmeConfig

    @hookimpl
    def locex_create_transform(self, config):
        return self.step(config)


class Remember(Plugin):
    step = RememberStep


class Restore(Plugin):
    step = RestoreStep


class Learn(Plugin):
    step = LearnStep
