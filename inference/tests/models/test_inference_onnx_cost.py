"""Which ONNX models a request's values can make endless, and where those run."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from locex.errors import InvalidModel
from locex_inference.inferencers.onnx_cost import bounded

ONE, ZERO = np.array([1], np.int64), np.array([0], np.int64)


def loop(models):
    """A model that counts as far as the request says."""
    of = models.types
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [models.node("Identity", ["c"], ["again"]), models.node("Add", ["v", "one"], ["more"])],
        "body",
        [info("i", of.INT64, []), info("c", of.BOOL, []), info("v", of.INT64, [1])],
        [info("again", of.BOOL, []), info("more", of.INT64, [1])],
        [models.tensor(ONE, "one")],
    )
    nodes = [
        models.node("ReduceMax", ["x"], ["turns"], keepdims=0),
        models.node("Loop", ["turns", "", "zero"], ["count"], body=body),
        models.node("Add", ["x", "count"], ["y"]),
    ]
    return models.graph(nodes, ["n", 1], ["n", 1], models.tensor(ZERO, "zero"), of=of.INT64)


def sized(models, *by):
    """A model that makes a tensor of a size and adds its sum to its input."""
    nodes = [
        *by,
        models.node("ConstantOfShape", ["size"], ["made"]),
        models.node("ReduceSum", ["made"], ["sum"], keepdims=0),
        models.node("Cast", ["sum"], ["whole"], to=models.types.INT64),
        models.node("Add", ["x", "whole"], ["y"]),
    ]
    flat = models.tensor(np.array([-1], np.int64), "flat")
    return models.graph(nodes, ["n", 1], ["n", 1], flat, of=models.types.INT64)


def test_what_a_value_decides_is_unbounded_and_what_a_shape_decides_is_not(models):
    assert bounded(models.write(models.linear()))
    assert bounded(models.write(sized(models, models.node("Shape", ["x"], ["size"]))))
    assert not bounded(models.write(sized(models, models.node("Reshape", ["x", "flat"], ["size"]))))
    assert not bounded(models.write(loop(models)))


def test_a_name_that_is_given_twice_says_nothing(models):
    model = sized(models, models.node("Shape", ["x"], ["size"]), models.node("Reshape", ["x", "flat"], ["size"]))
    assert not bounded(models.write(model))


def test_a_file_that_is_cut_off_is_refused(models):
    whole = models.linear().SerializeToString()
    with pytest.raises(InvalidModel, match="corrupt"):
        bounded(models.write(whole[:-1]))


async def test_an_unbounded_model_has_its_own_process(loader, models):
    made = await loader.load("m", "1", models.write(loop(models)))
    assert not made.in_process
    (outputs,) = (await made.inferencer.arun({"x": np.array([[5]])}, ["y"])).values()
    assert outputs.tolist() == [[10]]
