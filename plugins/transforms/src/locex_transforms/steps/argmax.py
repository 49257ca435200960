"""The transformation ``argmax``: the index of the greatest output."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideConfig, SideStep


class ArgmaxConfig(SideConfig):
    """Along which axis."""

    axis: int = Field(default=-1, description="The axis of classes within an example; it vanishes.")


class ArgmaxStep(SideStep):
    """Turns scores into class indices; see `ArgmaxConfig`."""

    name = "argmax"

    def __init__(self, config: ArgmaxConfig) -> None:
        super().__init__(config.side)
        self._axis = config.axis

    def changed(self, array: Array) -> Array:
        """Return int64 without the axis; the first of equal scores wins."""
        best: Array = np.argmax(array, 1 + self.axis(self._axis, array.shape[1:])).astype(np.int64, copy=False)
        return best

    def kinds(self, given: dict[str, TensorFormat]) -> dict[str, TensorFormat]:
        """Return ``categorical``."""
        return {"categorical": self.formed(*self.one_kind(given))}

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the size without the axis, of indices."""
        self.need_numbers(kind, tensor)
        size = list(tensor.size)
        del size[self.axis(self._axis, size)]
        return tensor.model_copy(update={"size": size, "dtype": "int64", "normalized": None})


class Argmax(StepPlugin):
    """The index of the greatest output (``argmax``)."""

    config_model = ArgmaxConfig
    step = ArgmaxStep
