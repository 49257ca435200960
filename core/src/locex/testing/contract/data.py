"""A data source: what it declares is what it gives, twice the same."""

from __future__ import annotations

import numpy as np

from locex.api import DataSource
from locex.pipelines.steps import disagreement
from locex.pipelines.trail import describe
from locex.testing.contract.verdict import Verdict


def try_source(source: DataSource) -> Verdict:
    """Load the data of a source twice and hold them against its format."""
    verdict = Verdict()
    try:
        declared, first, second = source.format(), source.load(), source.load()
    except Exception as error:  # noqa: BLE001 -- an author's code may raise anything
        verdict.faults.append(f"it raised {type(error).__name__}: {error}")
        return verdict
    verdict.require(declared == first.format, f"format() says {describe(declared)}, the data {describe(first.format)}")
    for name in ("train", "test"):
        part, again = getattr(first, name), getattr(second, name)
        verdict.require(len(part.x) == len(part.y), f"{name} has {len(part.x)} inputs and {len(part.y)} targets")
        for side in ("x", "y"):
            array = getattr(part, side)
            fault = disagreement(array, getattr(declared, side)) if len(array) else None
            verdict.require(fault is None, f"{name} {side} has {fault}, which is not its format")
            same = np.array_equal(array, getattr(again, side), equal_nan=array.dtype.kind == "f")
            verdict.require(same, f"{name} {side} is another when loaded again: seed what is drawn")
    verdict.require(len(first.train), "it gave no training data")
    verdict.notes.append(f"tried: {len(first.train)} and {len(first.test)} examples of {describe(declared)}")
    return verdict
