"""Which PyTorch models have gradients of single examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from opacus.validators import ModuleValidator
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from locex.errors import LocexError, PrivacyRefused


def require_layers(module: nn.Module, weights: Sequence[nn.Parameter]) -> None:
    """Raise `PrivacyRefused`, naming layer and remedy, for what Opacus cannot take apart example by example."""
    for kind, known in (("TorchScript program", torch.jit.ScriptModule), ("torch.export program", fx.GraphModule)):
        if isinstance(module, known):
            raise PrivacyRefused(
                f"a {kind} is run as one operation after the other and has no layers, at which Opacus takes the "
                "gradients of single examples",
                remedy="upload the model as a named architecture with safetensors weights",
            )
    for name, layer in module.named_modules():
        where = f"{name or 'the model'} ({type(layer).__name__})"
        if isinstance(layer, _BatchNorm):
            raise PrivacyRefused(
                f"{where} normalizes every example by the others of its batch, and keeps their averages",
                remedy="put torch.nn.GroupNorm in its place (opacus.validators.ModuleValidator.fix does), and upload "
                "the model anew",
            )
        if getattr(layer, "track_running_stats", False):
            raise PrivacyRefused(
                f"{where} keeps averages of the data, which no noise covers",
                remedy="make it with track_running_stats=False, and upload the model anew",
            )
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.max_norm is not None:
            raise PrivacyRefused(
                f"{where} shortens the weights that it looks up to its max_norm, which no noise covers",
                remedy="make it without max_norm, and upload the model anew",
            )
        if type(layer) in ModuleValidator.VALIDATORS and ModuleValidator.VALIDATORS[type(layer)](layer):
            raise PrivacyRefused(
                f"Opacus has no gradients of single examples of {where}",
                remedy=f"put opacus.layers.DP{type(layer).__name__} in its place, and upload the model anew",
            )
    if any(weight.device != weights[0].device for weight in weights):
        raise PrivacyRefused("the model's weights lie on several devices", remedy="use one device")


def require_alike(found: Tensor, true: Tensor) -> None:
    """Raise `PrivacyRefused` where what Opacus finds is not what PyTorch finds, up to rounding."""
    bound = 1e-3 * float(true.abs().max()) + 1e-6
    if not torch.allclose(found, true, rtol=1e-2, atol=bound, equal_nan=True):
        raise PrivacyRefused(
            "Opacus does not see all of the gradient of this model's weights",
            remedy="use every weight in the forward() of the layer that it belongs to, and nowhere else",
        )


@contextmanager
def refuse_unknown() -> Iterator[None]:
    """Turn what Opacus and PyTorch raise about a model into `PrivacyRefused`."""
    try:
        yield
    except (LocexError, MemoryError):
        raise
    except Exception as error:  # layers and hooks raise what they like
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise PrivacyRefused(
            f"Opacus cannot take this model's gradients example by example: {lines[0][:300]}",
            remedy="use layers that Opacus knows (opacus.ai), each of which runs once for a batch",
        ) from error
