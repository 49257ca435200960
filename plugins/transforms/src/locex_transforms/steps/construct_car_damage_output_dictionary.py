"""The transformation ``construct_car_damage_output_dictionary``: the best class of every example, by name.

The dictionary around it is the inference protocol's own: outputs have names there.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from locex.api import Dataset, Needs
from locex.schemas.data_format import DataFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.steps.argmax import ArgmaxConfig, ArgmaxStep
from locex_transforms.steps.label_mapping import LabelMappingConfig, LabelMappingStep
from locex_transforms.steps.plugin import StepPlugin


class DamageConfig(PluginConfig):
    """The classes' names."""

    labels: list[str] | None = Field(
        default=None, min_length=1, description="The name of every class; absent: outputs stay as they are."
    )


class DamageStep:
    """``argmax`` where scores come in, then ``label_mapping``; nothing without labels."""

    needs = Needs()

    def __init__(self, config: DamageConfig) -> None:
        self._names = None if config.labels is None else LabelMappingStep(LabelMappingConfig(labels=[*config.labels]))
        self._best = ArgmaxStep(ArgmaxConfig())

    def transform_data(self, data: Dataset) -> Dataset:
        """Return names of shape (n,)."""
        if self._names is None:
            return data
        return self._names.transform_data(self._best.transform_data(data) if data.x.dtype.kind == "f" else data)

    def transform_format(self, data_format: DataFormat) -> DataFormat:
        """Return the format of names."""
        if self._names is None:
            return data_format
        types = {tensor.dtype for tensor in data_format.x.data_types.values()}
        scores = any(name is None or np.dtype(name).kind == "f" for name in types)
        return self._names.transform_format(self._best.transform_format(data_format) if scores else data_format)


class ConstructCarDamageOutputDictionary(StepPlugin):
    """The best class of every example, by name (``construct_car_damage_output_dictionary``)."""

    config_model = DamageConfig
    step = DamageStep
