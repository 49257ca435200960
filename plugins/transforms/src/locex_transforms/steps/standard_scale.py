"""The transformation ``standard_scale``: mean 0 and standard deviation 1, learned from the training split."""

from __future__ import annotations

import numpy as np

from locex.api import Array
from locex_transforms.batches import batches
from locex_transforms.steps.fitted import ScalerConfig, ScalerStep, nonzero
from locex_transforms.steps.plugin import StepPlugin

EPSILON = float(np.finfo(np.float64).eps)


class StandardScaleConfig(ScalerConfig):
    """Mean 0 and standard deviation 1."""


class StandardScaleStep(ScalerStep):
    """Subtracts the mean and divides by the standard deviation (of the population)."""

    name = "standard_scale"

    def learned(self, array: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
        """Return mean and deviation in float64, merged chunk by chunk (Chan, Golub and LeVeque, 1979)."""
        count, mean, squares = 0, np.zeros(1), np.zeros(1)
        for chunk in batches(array):
            values = chunk.astype(np.float64)
            fresh = int(np.prod([chunk.shape[axis] for axis in axes]))
            their_mean = values.mean(axes, keepdims=True)
            values -= their_mean
            their_squares = np.square(values, out=values).sum(axes, keepdims=True)
            delta = their_mean - mean
            total = count + fresh
            mean = mean + delta * (fresh / total)
            squares = squares + their_squares + delta**2 * (count * fresh / total)
            count = total
        variance = squares / count
        # What a sum's rounding alone makes of a constant is no deviation (the bound is scikit-learn's).
        rounding = count * EPSILON * variance + (count * EPSILON * mean) ** 2
        return mean, nonzero(np.sqrt(np.where(variance <= rounding, 0, variance)))


class StandardScale(StepPlugin):
    """Mean 0 and standard deviation 1 (``standard_scale``)."""

    config_model = StandardScaleConfig
    step = StandardScaleStep
