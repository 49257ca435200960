"""Losses by the names that PyTorch's and Keras' users write: mean losses of a batch.

Models give logits, save where a loss's own line says otherwise. The formulas are those of ``torch.nn.functional``,
and of ``keras.losses`` where PyTorch has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from locex_torch_builder.names import LossName
from locex_torch_builder.targets import Classes, LogValues, Margins, Reading, Units, Values, class_rows

EPSILON = 1e-7
"""What Keras keeps logarithms and quotients away from zero with."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss, and how it reads outputs and targets."""

    function: Callable[[Tensor, Tensor], Tensor]
    """Takes outputs and targets, gives the mean loss, a scalar."""
    reading: Reading


def nll(outputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood; the model gives logarithms of probabilities (it ends in a log-softmax)."""
    if targets.is_floating_point():
        return -(targets * outputs).sum(1).mean()
    return functional.nll_loss(outputs, targets)


def kl_divergence(outputs: Tensor, targets: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the targets from the softmax of logits, or of logarithms of probabilities."""
    logarithms = functional.log_softmax(outputs, 1)
    rows = class_rows(targets, outputs)
    return functional.kl_div(logarithms, rows, reduction="none").sum(1).mean()


def categorical_focal_crossentropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017) with Keras' alpha 0.25 and gamma 2."""
    logarithms = functional.log_softmax(outputs, 1)
    weights = 0.25 * (1 - logarithms.exp()).square()
    return -(weights * class_rows(targets, outputs) * logarithms).sum(1).mean()


def binary_focal_crossentropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017) with Keras' gamma 2 and no balancing of classes."""
    probability = outputs.sigmoid()
    missed = targets * (1 - probability) + (1 - targets) * probability
    return (missed.square() * functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")).mean()


def categorical_hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    """Keras': how far the best wrong class comes within 1 of the right one."""
    rows = class_rows(targets, outputs)
    return ((1 - rows) * outputs).amax(1).sub((rows * outputs).sum(1)).add(1).relu().mean()


def hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of max(0, 1 - t·o) with targets of -1 and 1."""
    return (1 - targets * outputs).relu().mean()


def squared_hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of max(0, 1 - t·o)² with targets of -1 and 1."""
    return (1 - targets * outputs).relu().square().mean()


def mean_absolute_percentage_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """In percent of the targets."""
    return 100 * ((targets - outputs) / targets.abs().clamp(min=EPSILON)).abs().mean()


def mean_squared_logarithmic_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of (log(t + 1) - log(o + 1))², with negative values taken as none."""
    return (outputs.clamp(min=EPSILON).log1p() - targets.clamp(min=EPSILON).log1p()).square().mean()


def log_cosh(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of log(cosh(o - t))."""
    difference = outputs - targets
    return (difference + functional.softplus(-2 * difference) - math.log(2)).mean()


def cosine_similarity(outputs: Tensor, targets: Tensor) -> Tensor:
    """Keras': the negative of the mean similarity, so that less is better."""
    return -functional.cosine_similarity(outputs, targets, dim=-1).mean()


def poisson(outputs: Tensor, targets: Tensor) -> Tensor:
    """Keras': the model gives the expected number itself, which is positive."""
    return functional.poisson_nll_loss(outputs, targets, log_input=False, eps=EPSILON)


def poisson_nll(outputs: Tensor, targets: Tensor) -> Tensor:
    """PyTorch's: the model gives the logarithm of the expected number."""
    return functional.poisson_nll_loss(outputs, targets)


_CROSS_ENTROPY = Loss(functional.cross_entropy, Classes())
_KL_DIVERGENCE = Loss(kl_divergence, Classes())
_BINARY = Loss(functional.binary_cross_entropy_with_logits, Units())
_SQUARED = Loss(functional.mse_loss, Values())
_ABSOLUTE = Loss(functional.l1_loss, Values())
_PERCENTAGE = Loss(mean_absolute_percentage_error, Values())
_LOGARITHMIC = Loss(mean_squared_logarithmic_error, Values())
_LOG_COSH = Loss(log_cosh, Values())

LOSSES: dict[LossName, Loss] = {
    "categorical_crossentropy": _CROSS_ENTROPY,
    "sparse_categorical_crossentropy": _CROSS_ENTROPY,
    "cross_entropy": _CROSS_ENTROPY,
    "crossentropy": _CROSS_ENTROPY,
    "categorical_focal_crossentropy": Loss(categorical_focal_crossentropy, Classes()),
    "categorical_hinge": Loss(categorical_hinge, Classes()),
    "nll": Loss(nll, Classes()),
    "kl_divergence": _KL_DIVERGENCE,
    "kl_div": _KL_DIVERGENCE,
    "kldiv": _KL_DIVERGENCE,
    "kld": _KL_DIVERGENCE,
    "binary_crossentropy": _BINARY,
    "binary_cross_entropy": _BINARY,
    "bce": _BINARY,
    "bce_with_logits": _BINARY,
    "binary_focal_crossentropy": Loss(binary_focal_crossentropy, Units()),
    "hinge": Loss(hinge, Margins()),
    "squared_hinge": Loss(squared_hinge, Margins()),
    "mean_squared_error": _SQUARED,
    "mse": _SQUARED,
    "mean_absolute_error": _ABSOLUTE,
    "mae": _ABSOLUTE,
    "l1": _ABSOLUTE,
    "mean_absolute_percentage_error": _PERCENTAGE,
    "mape": _PERCENTAGE,
    "mean_squared_logarithmic_error": _LOGARITHMIC,
    "msle": _LOGARITHMIC,
    "huber": Loss(functional.huber_loss, Values()),
    "smooth_l1": Loss(functional.smooth_l1_loss, Values()),
    "logcosh": _LOG_COSH,
    "log_cosh": _LOG_COSH,
    "cosine_similarity": Loss(cosine_similarity, Values()),
    "poisson": Loss(poisson, Values()),
    "poisson_nll": Loss(poisson_nll, LogValues()),
}
