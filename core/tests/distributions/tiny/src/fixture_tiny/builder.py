"""A softmax regression in NumPy: a library small enough to test the engine without any framework."""

import json
import os
import time

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from locex.api import Evaluation, FitResult, ModelSignature, Stopped, TensorSpec
from locex.errors import InvalidModel
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class TinyConfig(PluginConfig):
    eval_func: str | None = Field(default=None, description="Any word; the loss is cross-entropy.")
    eval_metrics: list[str] = Field(default=[], description="Any words; accuracy is told.")
    damping: float = Field(default=0.0, ge=0, lt=1, description="Share of the learning rate that is left out.")


class TinyBuilder:
    """Trains a softmax regression; the artefact is JSON: {"features": …, "classes": …}."""

    @hookimpl
    def locex_config_model(self):
        return TinyConfig

    @hookimpl
    def locex_create_builder(self, config, context):
        return TinySession(context, config.damping)


class TinySession:
    def __init__(self, context, damping):
        if damping:
            context.warn(f"training is damped by {damping}")
        try:
            shape = json.loads(context.artefact.path.read_bytes())
        except ValueError as error:
            raise InvalidModel(f"not a tiny model: {error}", remedy="send JSON with features and classes") from None
        np.ones(int(os.environ.get("FIXTURE_BUILD_ALLOCATE", "0")) * 2**17)
        time.sleep(float(os.environ.get("FIXTURE_BUILD_SECONDS", "0")))
        self._context = context
        self._weights = np.zeros((shape["features"], shape["classes"]), np.float32)
        self._steps = np.zeros((), np.int64)
        self._rate = context.optimizer(None) * (1 - damping)
        self.signature = ModelSignature(
            TensorSpec((shape["features"],), "float32"), TensorSpec((shape["classes"],), "float32")
        )

    def get_parameters(self):
        return {"weights": self._weights.copy(), "steps": self._steps.copy()}

    def set_parameters(self, parameters):
        self._weights = parameters["weights"].astype(np.float32)
        self._steps = parameters["steps"].astype(np.int64)

    def fit(self, config, *, server_round, proximal_mu=0.0):
        data = self._context.data.train
        for _ in range(config.epochs):
            if self._context.should_stop():
                raise Stopped
            time.sleep(float(os.environ.get("FIXTURE_EPOCH_SECONDS", "0")))
            if os.environ.get("FIXTURE_ALLOCATE"):
                self.hoard = np.ones(int(os.environ["FIXTURE_ALLOCATE"]) * 2**17)
                time.sleep(30)
            error = _softmax(data.x @ self._weights) - np.eye(self._weights.shape[1])[data.y]
            self._weights = (self._weights - self._rate * data.x.T @ error / len(data)).astype(np.float32)
            self._steps = np.asarray(self._steps + 1)
        return FitResult(len(data), {"loss": _loss(self._weights, data)})

    def evaluate(self, config):
        data = self._context.data.test
        hits = (data.x @ self._weights).argmax(1) == data.y
        return Evaluation(_loss(self._weights, data), len(data), {"accuracy": float(hits.mean())})

    def save_state(self, folder):
        save_file({"steps": np.asarray(self._steps)}, folder / "tiny.safetensors")

    def load_state(self, folder):
        self._steps = load_file(folder / "tiny.safetensors")["steps"]

    def export(self, folder, formats):
        path = folder / "model.safetensors"
        save_file(self.get_parameters(), path)
        return [path]


def _softmax(scores):
    scores = np.exp(scores - scores.max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)


def _loss(weights, data):
    return float(-np.log(_softmax(data.x @ weights)[np.arange(len(data)), data.y] + 1e-9).mean())
