"""Sparse and dense gradients: which optimizers take which, told before PyTorch breaks off in the middle of a step."""

from __future__ import annotations

from typing import Any

from locex.errors import InvalidConfiguration


class GradientCheck:
    """A hook before an optimizer's steps; it looks at the first one, since the layout is the model's."""

    def __init__(self, optimizer: str, *, sparse: bool) -> None:
        """``optimizer``: its name in ``torch.optim``; ``sparse``: whether it takes sparse or dense gradients only."""
        self._name = optimizer
        self._sparse = sparse
        self._seen = False

    def __call__(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        """Raise `InvalidConfiguration` if one of the gradients has the layout that the optimizer does not take."""
        if self._seen:
            return
        groups = (group["params"] for group in optimizer.param_groups)
        layouts = {weight.grad.is_sparse for weights in groups for weight in weights if weight.grad is not None}
        if (not self._sparse) in layouts:
            raise self._refusal()
        self._seen = bool(layouts)

    def _refusal(self) -> InvalidConfiguration:
        has, needs = ("dense", "sparse") if self._sparse else ("sparse", "dense")
        message = f"{self._name} takes {needs} gradients only, and the model has {has} ones"
        remedy = (
            "choose adam, or a model of embeddings alone, each with sparse=True"
            if self._sparse
            else "choose sgd, adagrad or, for embeddings alone, sparseadam; or build the embeddings without sparse"
        )
        return InvalidConfiguration(
            message, remedy=remedy, errors=[{"path": "/optimizer_config/optimizer", "message": message}]
        )
