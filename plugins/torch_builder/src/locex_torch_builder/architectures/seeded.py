"""What architectures share: the signature, and weights drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from locex.api import ModelSignature, TensorSpec
from locex.artefacts.memory import require_room
from locex.errors import InvalidModel

if TYPE_CHECKING:
    from torch import nn


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
