"""Data that does not fit the model is found out before the federation is joined."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def misfits(shared_house):
    """Models that do not fit the digits, by what is wrong."""
    import sys

    kit = sys.modules[type(shared_house).__module__]
    shared_house.add_model("rank", kit.artefact([1, 8, 8], "cnn", channels=[4]))
    shared_house.add_model("size", kit.artefact([63]))


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        ("rank", "x has the size [64] of rank 1, not 3, the model takes [1, 8, 8]"),
        ("size", "x has the size [64], the model takes [63]"),
    ],
)
def test_a_mismatch_fails_the_preparation_and_shows_every_step(house, misfits, model, wrong):
    node = house.nodes[0]
    house.new_training()  # nobody listens: the job must not get so far
    node.post(house.id, house.job(model_name=model))
    failure = node.over(house.id)["failure"]
    assert failure["code"] == "format-mismatch"
    assert wrong in failure["message"]
    source, step = failure["message"].splitlines()[-2:]
    assert "0. source" in source
    assert "uint8" in source
    assert "1. basic_norm" in step
    assert "float32" in step
    assert node.states(house.id) == ["QUEUED", "CONFIGURING", "PREPARING", "FAILED"]
