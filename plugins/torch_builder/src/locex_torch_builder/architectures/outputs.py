"""What architectures share: the number of output units, the signature, and weights drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from locex.api import ModelSignature, TensorSpec
from locex.artefacts.memory import require_room
from locex.errors import InvalidModel
from locex.schemas.plugin import PluginConfig

if TYPE_CHECKING:
    from torch import nn

Positive = Annotated[int, Field(gt=0)]


class OutputConfig(PluginConfig):
    """The output units: as many as classes, unless ``outputs`` says otherwise."""

    num_classes: int | None = Field(default=None, ge=2, description="Classes; one output unit (logit) for each.")
    outputs: Positive | None = Field(
        default=None, description="Output units, for regression, or 1 for two classes with a binary loss."
    )

    @model_validator(mode="after")
    def _agree(self) -> OutputConfig:
        if self.num_classes is None and self.outputs is None:
            raise ValueError("num_classes or outputs must be given")
        given = (self.num_classes, self.outputs)
        if None not in given and given != (2, 1) and self.num_classes != self.outputs:
            raise ValueError("outputs must equal num_classes, or be 1 where num_classes is 2")
        return self

    @property
    def units(self) -> int:
        """The number of output units."""
        return self.outputs or self.num_classes or 0


def build(layers: Callable[[], Mapping[str, nn.Module]], size: Sequence[int], units: int, seed: int) -> nn.Module:
    """Return the named layers in sequence with weights drawn from ``seed``; the global generator stays as it is.

    Raise `InvalidModel` where the machine has not the memory for them. The module's ``signature`` tells what it takes
    and gives; the builder reads it.
    """
    from collections import OrderedDict

    import torch

    _require_room(layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(OrderedDict(layers()))
    model.__dict__["signature"] = ModelSignature(
        input=TensorSpec(tuple(size), "float32"), output=TensorSpec((units,), "float32")
    )
    return model


def _require_room(layers: Callable[[], Mapping[str, nn.Module]]) -> None:
    """Count the weights without making them: on PyTorch's device ``meta`` tensors have shapes only."""
    import torch

    try:
        with torch.device("meta"):
            tensors = [tensor for layer in layers().values() for tensor in layer.state_dict().values()]
    except (RuntimeError, TypeError) as error:  # sizes beyond 64 bits
        told = str(error).partition("\n")[0]
        raise InvalidModel(f"the architecture's sizes are absurd: {told}", remedy="choose smaller sizes") from error
    require_room(sum(tensor.numel() * tensor.element_size() for tensor in tensors), "the architecture")
