"""What every file source does with its arrays: check them, describe them, split them."""

from __future__ import annotations

import numpy as np

from locex.api import Dataset
from locex.errors import DataUnavailable
from locex.schemas.data_format import DataFormat

KIND_BY_RANK = {0: "numerical", 1: "tabular"}


def check_examples(data: Dataset, names: str) -> None:
    """Raise `DataUnavailable` unless ``x`` and ``y`` hold as many examples, and at least one."""
    if len(data.x) != len(data.y):
        raise DataUnavailable(
            f"{names}: x has {len(data.x)} examples, y has {len(data.y)}",
            remedy="write both files from the same examples",
        )
    if len(data.x) == 0:
        raise DataUnavailable(f"{names}: there are no examples", remedy="add examples to the files")


def check_alike(train: Dataset, test: Dataset, names: str) -> None:
    """Raise `DataUnavailable` unless training and test examples have the same shapes and types."""
    for side in ("x", "y"):
        ours, theirs = getattr(train, side), getattr(test, side)
        if ours.shape[1:] != theirs.shape[1:] or ours.dtype != theirs.dtype:
            raise DataUnavailable(
                f"{names}: training {side} is {ours.dtype} of shape {ours.shape[1:]} per example, "
                f"test {side} is {theirs.dtype} of shape {theirs.shape[1:]}",
                remedy="write training and test files alike",
            )


def describe(data: Dataset, x_kind: str | None, y_kind: str | None) -> DataFormat:
    """Return the format that shapes and types tell; a kind that is given replaces the one derived.

    ``x`` is an image from two axes per example on, tabular with one, numerical with none. ``y`` is categorical where
    it holds integers or booleans, else numerical.
    """
    x_kind = x_kind or KIND_BY_RANK.get(data.x.ndim - 1, "image")
    y_kind = y_kind or ("categorical" if data.y.dtype.kind in "biu" else "numerical")
    return DataFormat.of(
        {x_kind: {"size": list(data.x.shape[1:]), "dtype": data.x.dtype.name}},
        {y_kind: {"size": list(data.y.shape[1:]), "dtype": data.y.dtype.name}},
    )


def split(data: Dataset, test_fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Return training and test examples, drawn by ``seed`` and kept in their order; both are copies in memory.

    At least one example goes to either side; raise `DataUnavailable` where there are fewer than two.
    """
    count = len(data)
    if count < 2:  # noqa: PLR2004 -- one for training, one for testing
        raise DataUnavailable(
            "one example cannot be split into training and test data", remedy="add examples, or test files"
        )
    tests = min(max(1, round(count * test_fraction)), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    test, train = np.sort(order[:tests]), np.sort(order[tests:])
    return Dataset(data.x[train], data.y[train]), Dataset(data.x[test], data.y[test])
