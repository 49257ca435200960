"""Small data of every usual kind, and data sets of an author's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from locex.api import Array, Dataset
from locex.schemas.data_format import DataFormat, TensorFormat

ROWS = 12
CLASSES = 3

_CATEGORICAL = {"categorical": {"size": [], "dtype": "int64"}}
_ONE_HOT = {"categorical": {"size": [CLASSES], "dtype": "float32"}}

FORMATS = [
    DataFormat.of({"image": {"size": [16, 12, 3], "dtype": "uint8"}}, _CATEGORICAL),
    DataFormat.of({"image": {"size": [16, 12, 3], "dtype": "float32"}}, _ONE_HOT),
    DataFormat.of({"image": {"size": [16, 12], "dtype": "float32"}}, _CATEGORICAL),
    DataFormat.of({"tabular": {"size": [6], "dtype": "float32"}}, _CATEGORICAL),
    DataFormat.of({"numerical": {"size": [6], "dtype": "float64"}}, {"numerical": {"size": [], "dtype": "float64"}}),
    DataFormat.of({"numerical": {"size": [], "dtype": "int64"}}, _CATEGORICAL),
    DataFormat.of({"series": {"size": [8, 2], "dtype": "float32"}}, {"numerical": {"size": [1]}}),
]
"""Images in bytes and in floats, tables, single numbers, series; targets by index, one-hot and continuous."""


def examples_of(form: DataFormat, rows: int = ROWS) -> Dataset:
    """Return data of a format, always the same, read-only as memory-mapped data are."""
    generator = np.random.default_rng(5)
    x, y = (_array(next(iter(side.data_types.values())), rows, generator) for side in (form.x, form.y))
    return read_only(Dataset(x, y))


def read_examples(path: Path) -> Dataset:
    """Return the arrays ``x`` and ``y`` of an ``.npz`` file, read-only."""
    with np.load(path, allow_pickle=False) as arrays:
        return read_only(Dataset(arrays["x"], arrays["y"]))


def format_of(data: Dataset) -> DataFormat:
    """Return the format of arrays."""
    x, y = ({"data": {"size": list(array.shape[1:]), "dtype": str(array.dtype)}} for array in (data.x, data.y))
    return DataFormat.of(x, y)


def read_only(data: Dataset) -> Dataset:
    """Return views that cannot be written."""
    views = data.x.view(), data.y.view()
    for view in views:
        view.flags.writeable = False
    return Dataset(*views)


def _array(tensor: TensorFormat, rows: int, generator: np.random.Generator) -> Array:
    shape, dtype = (rows, *tensor.size), np.dtype(tensor.dtype or "float32")
    if dtype.kind == "f" and tensor.size == [CLASSES]:
        return np.eye(CLASSES, dtype=dtype)[np.arange(rows) % CLASSES]
    if dtype.kind == "f":
        return generator.normal(size=shape).astype(dtype)
    if dtype == np.uint8:
        return generator.integers(256, size=shape, dtype=np.uint8)
    return (np.arange(rows * int(np.prod(tensor.size, dtype=int))) % CLASSES).reshape(shape).astype(dtype)
