"""What the contract suite tells of an inferencer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from locex.api import TensorInfo
from locex.testing.contract.inferencer import try_inferencer


class Doubling:
    inputs = (TensorInfo("x", "FP32", (-1, 2)), TensorInfo("t", "BYTES", (-1,)), TensorInfo("n", "INT64", (-1, -1)))
    outputs = (TensorInfo("y", "FP32", (-1, 2)), TensorInfo("s", "BYTES", (-1,)))

    def run(self, inputs, outputs):
        made = {"y": inputs["x"] * 2, "s": inputs["t"]}
        return {name: made[name] for name in outputs}

    def close(self):
        pass


class Wider(Doubling):
    def run(self, inputs, outputs):
        made = {"y": np.ones((len(inputs["x"]), 3)), "s": inputs["t"]}
        return {name: made[name] for name in outputs}


class Writing(Doubling):
    def run(self, inputs, outputs):
        inputs["x"][:] = 0
        return super().run(inputs, outputs)


class Drawing(Doubling):
    draws = itertools.count()

    def run(self, inputs, outputs):
        made = {"y": inputs["x"] + np.float32(next(self.draws)), "s": inputs["t"]}
        return {name: made[name] for name in outputs}


class Deaf(Doubling):
    def run(self, inputs, outputs):
        return super().run(inputs, ["y", "s"])


class Odd(Doubling):
    outputs = (TensorInfo("y", "COMPLEX64", (-1, 2)),)


def test_one_that_keeps_the_contract_has_no_faults():
    verdict = try_inferencer(Doubling())
    assert (verdict.faults, verdict.notes) == ([], ["tried on x FP32 [-1, 2], t BYTES [-1], n INT64 [-1, -1]"])


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Wider, "it declares y as FP32 [-1, 2] and gives FP64 [1, 3]"),
        (Writing, "run raised ValueError: assignment destination is read-only"),
        (Drawing, "y is another one the second time"),
        (Deaf, "asked for ['y'] it gave ['y', 's']"),
        (Odd, "y has the type COMPLEX64, which the protocol has not"),
    ],
)
def test_what_breaks_it_is_told(kind, fault):
    assert fault in try_inferencer(kind()).faults
