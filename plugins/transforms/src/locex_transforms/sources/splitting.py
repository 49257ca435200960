"""Which examples become test data."""

from __future__ import annotations

import numpy as np

from locex.api import Array
from locex.errors import DataUnavailable


def test_rows(y: Array, fraction: float, seed: int, *, stratify: bool) -> Array:
    """Return which examples are test data, shape (n,), drawn by ``seed``.

    At least one example goes to either side; of a class, as many as its share says. Raise `DataUnavailable` where
    there are fewer than two examples, or no classes to stratify by.
    """
    count = len(y)
    if count < 2:  # noqa: PLR2004 -- one for training, one for testing
        raise DataUnavailable(
            "one example cannot be split into training and test data", remedy="add examples, or test files"
        )
    mask = np.zeros(count, bool)
    tests = min(max(1, round(count * fraction)), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    if not stratify:
        mask[order[:tests]] = True
        return mask
    if y.ndim != 1 or (y.dtype.kind not in "biu" and not np.array_equal(y, np.floor(y))):
        raise DataUnavailable(
            f"a split by class needs class indices, but y is {y.dtype} of shape {y.shape[1:]} per example",
            remedy="leave stratify out, or give y as integers",
        )
    mask[_evenly(np.asarray(y)[order], order, tests)] = True
    return mask


def _evenly(classes: Array, order: Array, tests: int) -> Array:
    """Return ``tests`` examples such that every class's share is met to within one example."""
    by_class = np.argsort(classes, kind="stable")
    sizes = np.unique(classes, return_counts=True)[1]
    # The k-th of m examples of a class stands at (k + ½)/m of it: the first ones of all classes together are an even
    # choice.
    within = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    taken: Array = order[by_class[np.argsort(within, kind="stable")[:tests]]]
    return taken
