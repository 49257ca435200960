"""One step of training: loss, gradients, what is done to gradients, and the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer, SparseAdam

from locex.errors import InvalidConfiguration
from locex_torch_builder.forward import Forward
from locex_torch_builder.losses import Loss
from locex_torch_builder.options import PytorchBuilderConfig

if TYPE_CHECKING:
    from locex.api import GradientSource

_TOGETHER = {"SGD", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop"}
"""Optimizers that give bit-equal weights on the CPU whether they update tensors one by one or all at once."""
_FUSED = {"Adam", "AdamW"}
"""Optimizers that gain much from one kernel on the CPU; weights differ from the others' by rounding."""


class Trainer:
    """Makes the steps of rounds."""

    def __init__(
        self,
        forward: Forward,
        loss: Loss,
        optimizer: Optimizer,
        parameters: Sequence[nn.Parameter],
        options: PytorchBuilderConfig,
    ) -> None:
        """``parameters`` are those that are trained; raise `InvalidConfiguration` for what does not go together."""
        self._forward = forward
        self._loss = loss.function
        self._optimizer = optimizer
        self._parameters = parameters
        self._options = options
        self._scaler = torch.amp.GradScaler(forward.device.type) if forward.precision == torch.float16 else None
        self._anchor: list[Tensor] = []
        self._mu = 0.0
        self._source: GradientSource | None = None
        self._refuse_what_does_not_go_together()
        if forward.device.type == "cpu":
            _update_fast(optimizer)

    def _refuse_what_does_not_go_together(self) -> None:
        clip = next((name for name in ("norm", "value") if getattr(self._options, f"gradient_clip_{name}")), None)
        if clip and isinstance(self._optimizer, LBFGS | SparseAdam):
            searches = isinstance(self._optimizer, LBFGS)
            reason = "its search needs the true ones" if searches else "PyTorch clips no sparse gradients"
            raise _invalid(
                f"gradient_clip_{clip}",
                f"{type(self._optimizer).__name__} does not go with clipped gradients: {reason}",
            )
        if self._scaler and isinstance(self._optimizer, LBFGS):
            raise _invalid("mixed_precision", "LBFGS evaluates a loss that float16 would scale: choose bfloat16")

    def take_gradients_from(self, source: GradientSource) -> None:
        """Leave gradients to ``source``; raise `InvalidConfiguration` for what needs others than it gives."""
        if isinstance(self._optimizer, LBFGS | SparseAdam):
            name = type(self._optimizer).__name__
            reason = "searches with many gradients a step" if name == "LBFGS" else "takes sparse gradients only"
            message = f"{name} {reason}: it does not go with private gradients"
            raise InvalidConfiguration(
                message,
                remedy="choose another optimizer, e.g. sgd or adam",
                errors=[{"path": "/optimizer_config/optimizer", "message": message}],
            )
        for option in ("mixed_precision", "compile"):
            if getattr(self._options, option):
                raise _invalid(option, f"{option} does not go with private gradients")
        self._source = source

    def begin(self, mu: float) -> None:
        """Begin a round; ``mu`` over 0 pulls towards the weights of now (FedProx, Li et al. 2020)."""
        self._mu = mu
        self._anchor = [parameter.detach().clone() for parameter in self._parameters] if mu > 0 else []

    def step(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Train on a batch; return its loss, without FedProx's term, and the outputs, both from before the step."""
        if isinstance(self._optimizer, LBFGS):
            return self._search(self._optimizer, inputs, targets)
        if self._source is not None:
            loss, outputs, gradients = self._source.gradients(inputs, targets)
            self._descend(gradients)
            return loss, outputs
        outputs = self._forward(inputs)
        loss = self._loss(outputs, targets)
        self._optimizer.zero_grad()
        if self._scaler is not None:
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._scaler.unscale_(self._optimizer)
            self._change_gradients()
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            loss.backward()  # type: ignore[no-untyped-call]
            self._change_gradients()
            self._optimizer.step()
        return loss, outputs

    def step_on_nothing(self) -> None:
        """Make the step of a batch without examples, with the gradients that are given for it."""
        assert self._source is not None
        self._descend(self._source.gradients_of_nothing())

    def _descend(self, gradients: Sequence[Tensor]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._change_gradients()
        self._optimizer.step()

    def _search(self, optimizer: LBFGS, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Let LBFGS evaluate the batch as often as it likes; what it minimizes has FedProx's term."""
        seen: list[tuple[Tensor, Tensor]] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            outputs = self._forward(inputs)
            loss = self._loss(outputs, targets)
            if not seen:
                seen.append((loss.detach(), outputs.detach()))
            objective = loss + self._mu / 2 * self._distance() if self._anchor else loss
            objective.backward()  # type: ignore[no-untyped-call]
            return objective

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        return seen[0]

    def _distance(self) -> Tensor:
        pairs = zip(self._parameters, self._anchor, strict=True)
        return torch.stack([(parameter - start).square().sum() for parameter, start in pairs]).sum()

    def _change_gradients(self) -> None:
        """Add the gradient of FedProx's term, then clip."""
        norm, value = self._options.gradient_clip_norm, self._options.gradient_clip_value
        if self._anchor or norm is not None or value is not None:
            self._refuse_sparse()
        if self._anchor:
            self._pull()
        if norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, norm)
        elif value is not None:
            nn.utils.clip_grad_value_(self._parameters, value)

    def _refuse_sparse(self) -> None:
        if any(parameter.grad is not None and parameter.grad.is_sparse for parameter in self._parameters):
            raise InvalidConfiguration(
                f"the model's gradients are sparse, which {'FedProx' if self._anchor else 'clipping'} does not take",
                remedy="train without gradient clipping and proximal_mu, or a model whose embeddings are not sparse",
            )

    def _pull(self) -> None:
        with torch.no_grad():
            for parameter, start in zip(self._parameters, self._anchor, strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - start, alpha=self._mu)


def _update_fast(optimizer: Optimizer) -> None:
    """Leave nothing to PyTorch's choice on the CPU, which updates one tensor after the other."""
    name = type(optimizer).__name__
    for group in optimizer.param_groups:
        chosen = group.get("foreach") is not None or group.get("fused") is not None or group.get("differentiable")
        if name in _FUSED and not chosen:
            group["fused"] = True
        elif name in _TOGETHER and not chosen:
            group["foreach"] = True


def _invalid(option: str, message: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        message,
        remedy=f"leave out {option}, or what it does not go with",
        errors=[{"path": f"/builder/{option}", "message": message}],
    )
