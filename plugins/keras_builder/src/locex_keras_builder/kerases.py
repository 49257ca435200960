"""The two Kerases: ``keras`` (Keras 3 on TensorFlow) and ``tf_keras`` (Keras 2, for TensorFlow's SavedModels).

They refuse each other's optimizers, callbacks, losses and metrics: everything of a session comes from one of them.
"""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from locex.errors import LocexError

KerasName = Literal["keras", "tf_keras"]
_WHILE_IMPORTING: dict[str, str | None] = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    # would turn tf.keras, which Keras 3 takes parts of, into the other Keras
    "TF_USE_LEGACY_KERAS": None,
}


@dataclass(frozen=True, slots=True)
class Keras:
    """One Keras: its name, and the module (``keras`` or ``tf_keras``) that everything is taken from."""

    name: KerasName
    module: ModuleType


def import_keras(name: KerasName) -> Keras:
    """Import a Keras on TensorFlow, quietly; the environment's variables stay as they are.

    Raise `LocexError` where Keras runs on another backend in this process already.
    """
    with _environment(_WHILE_IMPORTING):
        module = importlib.import_module(name)
    if name == "keras" and module.backend.backend() != "tensorflow":
        raise LocexError(
            f"Keras runs on {module.backend.backend()} in this process, the builder needs TensorFlow",
            remedy="let no plugin import keras before the builder, or set KERAS_BACKEND=tensorflow",
            code="plugin-broken",
        )
    return Keras(name, module)


def import_tensorflow() -> ModuleType:
    """Import TensorFlow as quietly; modules that use it take it from here."""
    with _environment(_WHILE_IMPORTING):
        return importlib.import_module("tensorflow")


def limit_threads(threads: int) -> None:
    """Let TensorFlow compute with so many threads, unless it has begun already: its pools never change."""
    threading = import_tensorflow().config.threading
    with suppress(RuntimeError):
        threading.set_intra_op_parallelism_threads(threads)
        threading.set_inter_op_parallelism_threads(threads)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what TensorFlow and its converters log and warn of their own deprecations."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl", "tf2onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _environment(values: dict[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
