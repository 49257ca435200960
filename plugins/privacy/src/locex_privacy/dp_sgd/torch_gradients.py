"""PyTorch's half of DP-SGD: gradients of single examples by Opacus, clipped and summed."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from torch import Tensor, nn

from locex.api import Differentiable
from locex.errors import PrivacyRefused
from locex_privacy.dp_sgd.torch_layers import refuse_unknown, require_layers

if TYPE_CHECKING:
    from locex.api import Array

logging.getLogger("opacus").setLevel(logging.ERROR)

BYTES = 2**28
"""Memory that gradients of single examples may take: larger batches are clipped in parts."""

Losses = Callable[[Tensor, Tensor], Tensor]
"""Takes outputs and targets, gives the loss of each example."""


class TorchGradients:
    """Implements `locex_privacy.dp_sgd.source.ClippedGradients` for a module, which is changed in training only."""

    def __init__(self, parts: Differentiable, max_norm: float, *, ghost: bool) -> None:
        """Try the module on a few examples; raise `PrivacyRefused` where its examples cannot be told apart."""
        self._module: nn.Module = parts.model
        self._weights: Sequence[nn.Parameter] = parts.weights
        self.sizes = [tuple(weight.shape) for weight in self._weights]
        self._norm = max_norm
        self._ghost = ghost
        numbers = sum(weight.numel() for weight in self._weights)
        self._part = None if ghost else max(1, BYTES // (numbers * self._weights[0].element_size()))
        require_layers(self._module, self._weights)
        inputs, targets = parts.sample()
        with refuse_unknown():
            self._losses = losses_of(parts.loss, self._module, inputs, targets)
            self._hooked = self._hooks()
            with self.attached(), torch.random.fork_rng():
                self._module.train()
                self._require_separate(inputs, targets)

    def _hooks(self) -> GradSampleModule:
        if self._ghost:
            hooked: GradSampleModule = GradSampleModuleFastGradientClipping(
                self._module, loss_reduction="sum", max_grad_norm=self._norm
            )
        else:
            hooked = GradSampleModule(self._module, loss_reduction="sum")
        hooked.remove_hooks()
        return hooked

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Have Opacus' hooks on the module inside; outside it is what it was, to be exported for example."""
        self._hooked.add_hooks(loss_reduction="sum")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook is firing")  # of inputs without gradients
                yield
        finally:
            self._hooked.remove_hooks()
            self._forget()

    def sums(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the mean of the losses that are finite, outputs, and the sums of clipped gradients."""
        totals = [torch.zeros_like(weight) for weight in self._weights]
        losses, outputs = [], []
        size = self._part or len(inputs)
        for x, y in zip(inputs.split(size), targets.split(size), strict=True):
            given = self._module(x)
            of_each = self._losses(given, y)
            add = self._add_ghostly if self._ghost else self._add
            add(totals, of_each, x, y)
            losses.append(of_each.detach())
            outputs.append(given.detach())
        every = torch.cat(losses)
        finite = every[every.isfinite()]
        return (finite if len(finite) else every).mean(), torch.cat(outputs), totals

    def released(self, sums: Sequence[Tensor] | None, noise: Sequence[Array], examples: float) -> list[Tensor]:
        """Return (sums + noise) / examples."""
        drawn = [
            torch.from_numpy(one).to(weight.device, weight.dtype)
            for one, weight in zip(noise, self._weights, strict=True)
        ]
        if sums is not None:
            drawn = [one + total for one, total in zip(drawn, sums, strict=True)]
        # as the weights lie in memory: fused optimizers take it for granted
        return [
            torch.empty_like(weight).copy_(one / examples) for one, weight in zip(drawn, self._weights, strict=True)
        ]

    def _add(self, totals: list[Tensor], losses: Tensor, _x: Tensor, _y: Tensor) -> None:
        losses.sum().backward()  # type: ignore[no-untyped-call]
        samples = [_sample(weight, len(losses)) for weight in self._weights]
        norms = torch.stack([one.flatten(1).norm(dim=1) for one in samples]).norm(dim=0)
        factors = self._factors(norms)
        for total, one in zip(totals, samples, strict=True):
            total += torch.einsum("n,n...->...", factors, _finite(one, norms))
        self._forget()

    def _add_ghostly(self, totals: list[Tensor], losses: Tensor, x: Tensor, y: Tensor) -> None:
        losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        norms: Tensor = self._hooked.get_norm_sample()
        kept = norms.isfinite()
        factors = self._factors(norms)
        self._hooked.disable_hooks()
        try:
            if not kept.all():  # not even 0 times what is not finite is a number
                losses, factors = self._losses(self._module(x[kept]), y[kept]), factors[kept]
            gradients = torch.autograd.grad((factors * losses).sum(), list(self._weights), allow_unused=True)
        finally:
            self._hooked.enable_hooks()
        for total, gradient in zip(totals, gradients, strict=True):
            if gradient is not None:
                total += gradient
        self._forget()

    def _factors(self, norms: Tensor) -> Tensor:
        factors = (self._norm / (norms + 1e-6)).clamp(max=1.0)
        return torch.where(norms.isfinite(), factors, torch.zeros_like(factors)).detach()

    def _forget(self) -> None:
        for weight in self._weights:
            weight.grad = None
        for parameter in self._module.parameters():
            parameter.grad_sample = None  # type: ignore[attr-defined]
            parameter._norm_sample = None  # type: ignore[attr-defined]  # noqa: SLF001 -- Opacus' own name
            parameter._forward_counter = 0  # type: ignore[attr-defined]  # noqa: SLF001 -- likewise
        for part in self._module.modules():
            part.__dict__.pop("activations", None)

    def _require_separate(self, inputs: Tensor, targets: Tensor) -> None:
        """Raise `PrivacyRefused` where a step changes buffers, or an example has a part in another's gradient."""
        before = {name: buffer.clone() for name, buffer in self._module.named_buffers()}
        self.sums(inputs, targets)
        for name, buffer in self._module.named_buffers():
            if not torch.equal(buffer, before[name]):
                raise PrivacyRefused(
                    f"the model keeps {name} of its training data, which no noise covers",
                    remedy="upload a model whose layers keep no statistics of the data",
                )
        if not self._ghost and len(inputs) > 1 and self._reaches_another(inputs, targets):
            raise PrivacyRefused(
                "in this model the examples of a batch have a part in each other's outputs",
                remedy="upload a model that treats every example by itself, e.g. with GroupNorm instead of BatchNorm",
            )

    def _reaches_another(self, inputs: Tensor, targets: Tensor) -> bool:
        # the loss of the first example alone: all others have no gradient
        x = inputs.detach().clone().requires_grad_(inputs.is_floating_point())
        self._losses(self._module(x), targets)[0].backward()  # type: ignore[no-untyped-call]
        found = [_sample(weight, len(inputs))[1:].any() for weight in self._weights]
        found += [x.grad[1:].any()] if x.grad is not None else []
        self._forget()
        return bool(torch.stack(found).any())


def losses_of(mean: Losses, module: nn.Module, inputs: Tensor, targets: Tensor) -> Losses:
    """Return the losses of single examples of a mean loss: each is the mean of a batch of one.

    A mean loss of many may weigh an example by what the others are, as those do that leave some targets out.
    """

    def one_by_one(outputs: Tensor, targets: Tensor) -> Tensor:
        pairs = zip(outputs.split(1), targets.split(1), strict=True)
        return torch.stack([mean(output, target) for output, target in pairs])

    def one(output: Tensor, target: Tensor) -> Tensor:
        return mean(output.unsqueeze(0), target.unsqueeze(0))

    def at_once(outputs: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = torch.func.vmap(one)(outputs, targets)
        return found

    with torch.no_grad(), torch.random.fork_rng():
        module.eval()
        outputs = module(inputs)
        try:
            same = torch.allclose(at_once(outputs, targets), one_by_one(outputs, targets), equal_nan=True)
        except RuntimeError:  # of operations that cannot be mapped over examples
            same = False
    return at_once if same else one_by_one


def _sample(weight: nn.Parameter, examples: int) -> Tensor:
    """Return the gradients of single examples of a weight; a weight that had no part has none."""
    found = getattr(weight, "grad_sample", None)
    if found is None and weight.grad is None:
        return weight.new_zeros((examples, *weight.shape))
    if not isinstance(found, Tensor) or found.shape != (examples, *weight.shape):
        raise RuntimeError(f"a weight of size {list(weight.shape)} has no gradients of single examples")
    return found


def _finite(samples: Tensor, norms: Tensor) -> Tensor:
    """Return gradients with zeros for the examples whose norm is not finite."""
    if math.isfinite(float(norms.sum())):
        return samples
    return torch.where(norms.isfinite().view(-1, *[1] * (samples.dim() - 1)), samples, torch.zeros_like(samples))
