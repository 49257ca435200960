"""Data that does not fit the model is found out before the federation is joined."""

from __future__ import annotations

import pytest


@pytest.fixture
def misfits(house, artefact):
    """Two models that do not fit the digits."""
    house.add_model("rank", artefact([1, 8, 8], "cnn", channels=[4]))
    house.add_model("size", artefact([63]))
    yield
    for name in ("rank", "size"):
        house.collector.call("DELETE", f"/model/{name}/1")


@pytest.mark.parametrize(("model", "takes"), [("rank", [1, 8, 8]), ("size", [63])])
def test_a_mismatch_fails_the_preparation_and_shows_every_step(house, misfits, model, takes):
    node = house.nodes[0]
    house.new_training()  # nobody listens: the job must not get so far
    node.post(house.id, house.job(model_name=model))
    failure = node.over(house.id)["failure"]
    assert failure["code"] == "format-mismatch"
    assert "the model does not take inputs of size [64]" in failure["message"]
    assert f"it takes {takes}" in failure["message"]
    source, step = failure["message"].splitlines()[-2:]
    assert "0. source" in source
    assert "uint8" in source
    assert "1. basic_norm" in step
    assert "float32" in step
    assert node.states(house.id) == ["QUEUED", "CONFIGURING", "PREPARING", "FAILED"]
