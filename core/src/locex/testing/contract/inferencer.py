"""An inferencer: it gives what it declares, the same each time, and leaves its input as it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from locex.api import Array, Inferencer, TensorInfo
from locex.artefacts.datatypes import DATATYPES
from locex.testing.contract.verdict import Verdict

_FREE = 16
_SIZES = (1, 3)


def try_inferencer(inferencer: Inferencer) -> Verdict:
    """Run a loaded model on made-up inputs of a few batch sizes."""
    verdict = Verdict()
    names = [info.name for info in inferencer.outputs]
    known = {*DATATYPES.values()}
    for info in (*inferencer.inputs, *inferencer.outputs):
        verdict.require(info.datatype in known, f"{info.name} has the type {info.datatype}, which the protocol has not")
    verdict.require(names, "it has no outputs")
    for size in _SIZES if not verdict.faults else ():
        given = {info.name: _made_up(info, size) for info in inferencer.inputs}
        before = {name: array.copy() for name, array in given.items()}
        try:
            made, again = inferencer.run(given, names), inferencer.run(given, names)
            first = inferencer.run(given, names[:1])
        except Exception as error:  # noqa: BLE001 -- an author's code may raise anything
            verdict.faults.append(f"run raised {type(error).__name__}: {error}")
            break
        verdict.require(list(first) == names[:1], f"asked for {names[:1]} it gave {list(first)}")
        verdict.require(all(np.array_equal(given[name], before[name]) for name in given), "it changed its input")
        for info in inferencer.outputs:
            _hold(verdict, info, made.get(info.name), again.get(info.name))
    inferencer.close()
    if not verdict.faults:
        told = ", ".join(f"{info.name} {info.datatype} {[*info.shape]}" for info in inferencer.inputs)
        verdict.notes.append(f"tried on {told}")
    return verdict


def _hold(verdict: Verdict, info: TensorInfo, made: Array | None, again: Array | None) -> None:
    if made is None or again is None:
        verdict.faults.append(f"it declares {info.name} and does not give it")
        return
    told = DATATYPES.get(made.dtype.name, "BYTES" if made.dtype.kind in "SU" else str(made.dtype))
    verdict.require(
        told == info.datatype and _fits(made.shape, info.shape),
        f"it declares {info.name} as {info.datatype} {[*info.shape]} and gives {told} {[*made.shape]}",
    )
    verdict.require(np.array_equal(made, again), f"{info.name} is another one the second time")


def _made_up(info: TensorInfo, examples: int) -> Array:
    sizes = [size if size >= 0 else _FREE if axis else examples for axis, size in enumerate(info.shape)]
    if info.datatype == "BYTES":
        array = np.full(sizes, b"a", object)
    else:
        names = {datatype: dtype for dtype, datatype in DATATYPES.items()}
        name = "float32" if info.datatype == "BF16" else names[info.datatype]
        array = np.ones(sizes, name) if np.dtype(name).kind == "f" else np.zeros(sizes, name)
    array.flags.writeable = False
    return array


def _fits(have: Sequence[int], want: Sequence[int]) -> bool:
    return len(have) == len(want) and all(one in (-1, size) for size, one in zip(have, want, strict=True))
