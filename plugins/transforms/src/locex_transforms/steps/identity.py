"""Conversions that the runtime makes anyway: builders and inferencers take NumPy arrays and give NumPy arrays.

``ndarray_to_torch_tensor``, ``preprocess_tensorflow_tensor`` and ``postprocess_tensorflow_tensor`` stand in pipelines
of older services; they are taken and change nothing.
"""

from __future__ import annotations

from locex.api import Dataset, Needs
from locex.schemas.data_format import DataFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.steps.plugin import StepPlugin


class IdentityConfig(PluginConfig):
    """Nothing to choose."""


class IdentityStep:
    """Changes nothing."""

    needs = Needs()

    def __init__(self, config: IdentityConfig) -> None:
        """Take the configuration that every step takes."""

    def transform_data(self, data: Dataset) -> Dataset:
        """Return the data as they are."""
        return data

    def transform_format(self, data_format: DataFormat) -> DataFormat:
        """Return the format as it is."""
        return data_format

    def inverse_data(self, data: Dataset) -> Dataset:
        """Return the data as they are."""
        return data


class Identity(StepPlugin):
    """A framework's conversion, made by the runtime itself."""

    config_model = IdentityConfig
    step = IdentityStep
