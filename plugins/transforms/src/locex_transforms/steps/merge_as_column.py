"""The transformation ``merge_as_column``: all values of an example in one row."""

from __future__ import annotations

import math

from locex.api import Array
from locex.schemas.data_format import TensorFormat
from locex_transforms.steps.plugin import StepPlugin
from locex_transforms.steps.side import SideConfig, SideStep


class MergeAsColumnConfig(SideConfig):
    """Nothing to choose but the side."""


class MergeAsColumnStep(SideStep):
    """Flattens examples: kinds that share an array become columns of one table."""

    name = "merge_as_column"

    def __init__(self, config: MergeAsColumnConfig) -> None:
        super().__init__(config.side)

    def changed(self, array: Array) -> Array:
        """Return shape (n, values of one example), in C order."""
        return array.reshape(len(array), math.prod(array.shape[1:]))

    def kinds(self, given: dict[str, TensorFormat]) -> dict[str, TensorFormat]:
        """Return ``tabular`` of as many columns as all kinds have values."""
        types = {tensor.dtype for tensor in given.values()}
        columns = sum(math.prod(tensor.size) for tensor in given.values())
        first = next(iter(given.values()))
        merged = {"size": [columns], "dtype": first.dtype if len(types) == 1 else None}
        return {"tabular": first.model_copy(update=merged)}

    def formed(self, kind: str, tensor: TensorFormat) -> TensorFormat:
        """Return the format of one kind alone."""
        return self.kinds({kind: tensor})["tabular"]


class MergeAsColumn(StepPlugin):
    """All values of an example in one row (``merge_as_column``)."""

    config_model = MergeAsColumnConfig
    step = MergeAsColumnStep
