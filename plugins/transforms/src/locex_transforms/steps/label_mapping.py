"""The transformation ``label_mapping``: class indices become names, or other indices."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideConfig, SideStep


class LabelMappingConfig(SideConfig):
    """What stands for each index."""

    labels: list[int | str] = Field(
        min_length=1, description="The label of every index, from 0: names, or integers (all of one sort)."
    )


class LabelMappingStep(SideStep):
    """Looks labels up; see `LabelMappingConfig`."""

    name = "label_mapping"

    def __init__(self, config: LabelMappingConfig) -> None:
        super().__init__(config.side)
        self._integers = all(isinstance(label, int) for label in config.labels)
        self._labels = np.array(config.labels, np.int64 if self._integers else np.str_)

    def changed(self, array: Array) -> Array:
        """Return labels of the same shape; raise `ValueError` for an index without one."""
        if array.dtype.kind not in "biu":
            raise ValueError(f"label_mapping needs integers, but {self.side} is {array.dtype}")
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < len(self._labels):
            raise ValueError(
                f"label_mapping has {len(self._labels)} labels, but {self.side} holds {array.min()} to {array.max()}"
            )
        found: Array = self._labels[array.astype(np.intp)]
        return found

    def kinds(self, given: dict[str, TensorFormat]) -> dict[str, TensorFormat]:
        """Return ``categorical`` for integers, ``text`` for names."""
        return {"categorical" if self._integers else "text": self.formed(*self.one_kind(given))}

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the same size; the type of names is not told, since it holds their length."""
        self.need_numbers(kind, tensor, "biu")
        return tensor.model_copy(update={"dtype": "int64" if self._integers else None})


class LabelMapping(StepPlugin):
    """Class indices as names (``label_mapping``)."""

    config_model = LabelMappingConfig
    step = LabelMappingStep
