"""PyTorch's half of DP-SGD: gradients of single examples by Opacus, clipped and summed."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from torch import Tensor, nn

from locex.api import Differentiable
from locex.errors import PrivacyRefused
from locex_privacy.dp_sgd.torch_layers import refuse_unknown, require_alike, require_layers

if TYPE_CHECKING:
    from locex.api import Array

logging.getLogger("opacus").setLevel(logging.ERROR)

BYTES = 2**28
"""Memory that gradients of single examples may take: larger batches are clipped in parts."""

Losses = Callable[[Tensor, Tensor], Tensor]
"""Takes outputs and targets, gives the loss of each example."""
_Sum = Callable[[Tensor, Tensor, Tensor], list[Tensor]]


class TorchGradients:
    """Implements `locex_privacy.dp_sgd.source.ClippedGradients` for a module, which is changed in training only."""

    sizes: Sequence[tuple[int, ...]]

    def __init__(self, parts: Differentiable, max_norm: float, *, ghost: bool) -> None:
        """Try the module on a few examples; raise `PrivacyRefused` where its examples cannot be told apart."""
        self._module: nn.Module = parts.model
        self._weights: Sequence[nn.Parameter] = parts.weights
        self.sizes = [tuple(weight.shape) for weight in self._weights]
        self._norm = max_norm
        numbers = sum(weight.numel() for weight in self._weights)
        self._part = max(1, BYTES // (numbers * self._weights[0].element_size()))
        require_layers(self._module, self._weights)
        inputs, targets = parts.sample()
        with refuse_unknown():
            self._losses = losses_of(parts.loss, self._module, inputs, targets)
            self._hooks = _plain_hooks(self._module)
            self._sum: _Sum = self._add
            norms = self._tried(inputs, targets)
            if ghost:
                self._hooks = _ghost_hooks(self._module, max_norm)
                self._sum, self._part = self._add_ghostly, parts.examples
                self._require_norms(norms, inputs, targets)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Have Opacus' hooks on the module inside; outside it is what it was, to be exported for example."""
        self._forget()
        self._hooks.add_hooks(loss_reduction="sum")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook is firing")  # of inputs without gradients
                yield
        finally:
            self._forget()
            self._hooks.cleanup()

    def sums(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the mean of the losses that are finite, outputs, and the sums of clipped gradients."""
        totals = [torch.zeros_like(weight) for weight in self._weights]
        losses, outputs = [], []
        for x, y in zip(torch.split(inputs, self._part), torch.split(targets, self._part), strict=True):
            given = self._module(x)
            of_each = self._losses(given, y)
            for total, part in zip(totals, self._sum(of_each, x, y), strict=True):
                total.add_(part)
            self._forget()
            losses.append(of_each.detach())
            outputs.append(given.detach())
        every = torch.cat(losses)
        finite = every[every.isfinite()]
        return (finite if len(finite) else every).mean(), torch.cat(outputs), totals

    def released(self, sums: Sequence[Tensor] | None, noise: Sequence[Array], examples: float) -> list[Tensor]:
        """Return (sums + noise) / examples, laid out in memory as the weights: fused optimizers rely on it."""
        released = [
            torch.empty_like(weight).copy_(torch.from_numpy(one))
            for one, weight in zip(noise, self._weights, strict=True)
        ]
        for one, total in zip(released, sums or (), strict=sums is not None):
            one.add_(total)
        return [one.div_(examples) for one in released]

    def _add(self, losses: Tensor, _x: Tensor, _y: Tensor) -> list[Tensor]:
        losses.sum().backward()  # type: ignore[no-untyped-call]
        samples, norms = self._samples(len(losses))
        factors = self._factors(norms)
        return [torch.einsum("n,n...->...", factors, _finite(one, norms)) for one in samples]

    def _add_ghostly(self, losses: Tensor, x: Tensor, y: Tensor) -> list[Tensor]:
        losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        norms: Tensor = self._hooks.get_norm_sample()
        kept, factors = norms.isfinite(), self._factors(norms)
        if not kept.any():
            return [torch.zeros_like(weight) for weight in self._weights]
        self._hooks.disable_hooks()
        try:
            if not kept.all():  # not even 0 times what is not finite is a number
                losses, factors = self._losses(self._module(x[kept]), y[kept]), factors[kept]
            return list(torch.autograd.grad((factors * losses).sum(), list(self._weights)))
        finally:
            self._hooks.enable_hooks()

    def _samples(self, examples: int) -> tuple[list[Tensor], Tensor]:
        """Return the gradients of single examples, and their norms over all weights."""
        samples = [_sample(weight, examples) for weight in self._weights]
        return samples, torch.stack([one.flatten(1).norm(dim=1) for one in samples]).norm(dim=0)

    def _factors(self, norms: Tensor) -> Tensor:
        factors = (self._norm / (norms + 1e-6)).clamp(max=1.0)
        return torch.where(norms.isfinite(), factors, torch.zeros_like(factors))

    def _forget(self) -> None:
        for parameter in self._module.parameters():
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]
            parameter._norm_sample = None  # type: ignore[attr-defined]  # noqa: SLF001 -- Opacus' own name
            parameter._forward_counter = 0  # type: ignore[attr-defined]  # noqa: SLF001 -- likewise
        for part in self._module.modules():
            part.__dict__.pop("activations", None)

    def _tried(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the norms of a few examples' gradients.

        Raise `PrivacyRefused` where a step changes buffers, where these are not the gradients that PyTorch takes, or
        where an example has a part in another's.
        """
        before = {name: tensor.clone() for name, tensor in self._tensors()}
        with self._trial():
            self._losses(self._module(inputs), targets).sum().backward()  # type: ignore[no-untyped-call]
            samples, norms = self._samples(len(inputs))
            for one, weight in zip(samples, self._weights, strict=True):
                if weight.grad is not None:
                    require_alike(one.sum(0), weight.grad)
        for name, tensor in self._tensors():
            if not torch.equal(tensor, before[name]):
                raise PrivacyRefused(
                    f"the model keeps {name} of its training data, which no noise covers",
                    remedy="upload a model whose layers keep no statistics of the data",
                )
        with self._trial():
            if self._reaches_another(inputs, targets) or self._sees_another(inputs):
                raise PrivacyRefused(
                    "in this model the examples of a batch have a part in each other's outputs",
                    remedy="upload a model that treats each example by itself, e.g. with GroupNorm for BatchNorm",
                )
        return norms

    def _reaches_another(self, inputs: Tensor, targets: Tensor) -> bool:
        # the loss of the first example alone: all others must have no gradient
        x = inputs.detach().clone().requires_grad_(inputs.is_floating_point())
        self._losses(self._module(x), targets)[0].backward()  # type: ignore[no-untyped-call]
        found = [one[1:].any() for one in self._samples(len(inputs))[0]]
        found += [x.grad[1:].any()] if x.grad is not None else []
        return bool(torch.stack(found).any())

    def _sees_another(self, inputs: Tensor) -> bool:
        """Tell whether outputs are others in a batch of one, which no gradient need show."""
        with torch.no_grad():
            first, again = self._module(inputs), self._module(inputs)
            if not torch.equal(first, again):  # it draws, and draws for a batch of one are others
                self._module.eval()
                first = self._module(inputs)
            alone = torch.cat([self._module(one) for one in torch.split(inputs, 1)])
        bound = 1e-4 * float(first.abs().max()) + 1e-6
        return not torch.allclose(alone, first, rtol=1e-3, atol=bound, equal_nan=True)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what a step without an optimizer must leave as it is, the module's weights included."""
        yield from self._module.named_buffers()
        for name, weight in self._module.named_parameters():
            yield name, weight.detach()

    def _require_norms(self, norms: Tensor, inputs: Tensor, targets: Tensor) -> None:
        with self._trial():
            self._losses(self._module(inputs), targets).sum().backward()  # type: ignore[no-untyped-call]
            require_alike(self._hooks.get_norm_sample(), norms)

    @contextmanager
    def _trial(self) -> Iterator[None]:
        """Train inside, with the same draws each time; outside, draws go on as if there had been none."""
        with self.attached(), torch.random.fork_rng():
            torch.manual_seed(0)
            self._module.train()
            yield


def _plain_hooks(module: nn.Module) -> Any:
    hooks = GradSampleModule(module, loss_reduction="sum")
    hooks.cleanup()
    return hooks


def _ghost_hooks(module: nn.Module, norm: float) -> Any:
    hooks = GradSampleModuleFastGradientClipping(module, loss_reduction="sum", max_grad_norm=norm)
    hooks.cleanup()
    return hooks


def losses_of(mean: Losses, module: nn.Module, inputs: Tensor, targets: Tensor) -> Losses:
    """Return the losses of single examples of a mean loss: each is the mean of a batch of one.

    A mean loss of many may weigh an example by what the others are, as those do that leave some targets out.
    """

    def one_by_one(outputs: Tensor, targets: Tensor) -> Tensor:
        pairs = zip(torch.split(outputs, 1), torch.split(targets, 1), strict=True)
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
