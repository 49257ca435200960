"""What every file source does with its arrays: check them, describe them."""

from __future__ import annotations

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

    ``x`` is an image from two axes per example on, tabular with one, numerical with none, text where it holds words
    (their type is not told, since it has their length). ``y`` is categorical where it holds integers or booleans,
    else numerical.
    """
    words = data.x.dtype.kind in "US"
    x_kind = x_kind or ("text" if words else KIND_BY_RANK.get(data.x.ndim - 1, "image"))
    y_kind = y_kind or ("categorical" if data.y.dtype.kind in "biu" else "numerical")
    return DataFormat.of(
        {x_kind: {"size": list(data.x.shape[1:]), "dtype": None if words else data.x.dtype.name}},
        {y_kind: {"size": list(data.y.shape[1:]), "dtype": data.y.dtype.name}},
    )
