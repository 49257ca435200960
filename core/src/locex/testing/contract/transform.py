"""A transformation: data and format rules agree, the input stays, every row stands for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from locex.api import Dataset, FittedTransform, RandomTransform, Transform
from locex.pipelines.steps import disagreement
from locex.pipelines.trail import describe
from locex.schemas.data_format import DataFormat
from locex.testing.contract.examples import examples_of
from locex.testing.contract.verdict import Verdict

_HALVES = (slice(None, 5), slice(5, None))


def try_transform(make: Callable[[], Transform], formats: Sequence[DataFormat], data: Dataset | None = None) -> Verdict:
    """Try a step on every format that it takes; with ``data``, which has the only format, on those arrays."""
    verdict = Verdict()
    taken, refusals = [], []
    for form in formats:
        given = form.model_copy(deep=True)
        try:
            after = make().transform_format(given)
        except ValueError as refusal:
            refusals.append(str(refusal))
            continue
        except Exception as error:  # noqa: BLE001 -- an author's code may raise anything
            verdict.faults.append(f"transform_format raised {type(error).__name__} ({error}) on {describe(form)}")
            continue
        taken.append(describe(form))
        verdict.require(given == form, f"transform_format changed the format that it was given ({describe(form)})")
        _try(verdict, make, after, data or examples_of(form), describe(form))
    if taken:
        verdict.notes.append(f"tried on {'; '.join(taken)}")
    elif not verdict.faults:
        verdict.notes.append(f"not tried, for it takes none of the examples: {'; '.join(dict.fromkeys(refusals))}")
    return verdict


def _try(verdict: Verdict, make: Callable[[], Transform], after: DataFormat, data: Dataset, name: str) -> None:
    step = make()
    before = Dataset(data.x.copy(), data.y.copy())
    try:
        if isinstance(step, FittedTransform):
            step.fit(data)
        whole = step.transform_data(data)
        again = step.transform_data(data)
        halves = [step.transform_data(Dataset(data.x[part], data.y[part])) for part in _HALVES]
        drawn: list[Dataset] = []
        if isinstance(step, RandomTransform):
            drawn = [step.transform_batch(data, np.random.default_rng(1)) for _ in (1, 2)]
    except Exception as error:  # noqa: BLE001 -- an author's code may raise anything
        why = " (it wrote into its input)" if "read-only" in str(error) else ""
        verdict.faults.append(f"it raised {type(error).__name__}: {error}{why}, on {name}")
        return
    verdict.require(_equal(data, before), f"it changed its input, on {name}")
    for result in (whole, *drawn):
        if not verdict.require(isinstance(result, Dataset), f"it returned {type(result).__name__}, not Dataset"):
            return
        for side, given, array in (("x", data.x, result.x), ("y", data.y, result.y)):
            if not verdict.require(isinstance(array, np.ndarray), f"{side} became {type(array).__name__}, on {name}"):
                return
            verdict.require(len(array) == len(given), f"{side} has {len(array)} of {len(given)} rows, on {name}")
            fault = disagreement(array, getattr(after, side))
            verdict.require(fault is None, f"{side} has {fault}, which is not its format rule, on {name}")
    verdict.require(_equal(whole, again), f"the same data gave another result the second time, on {name}")
    joined = Dataset(*(np.concatenate([getattr(half, side) for half in halves]) for side in ("x", "y")))
    verdict.require(_equal(whole, joined), f"a row's result depends on the rows beside it, on {name}")
    if drawn:
        verdict.require(_equal(*drawn), f"equal generators gave different draws, on {name}")


def _equal(one: Dataset, other: Dataset) -> bool:
    return all(
        a.shape == b.shape and (np.allclose(a, b, equal_nan=True) if a.dtype.kind == "f" else np.array_equal(a, b))
        for a, b in ((one.x, other.x), (one.y, other.y))
    )
