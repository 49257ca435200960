"""The aggregation ``fedavg`` by its entry point, and what is kept of a training."""

import json

import numpy as np
import pytest

from locex.api import Contribution
from locex.errors import InvalidModel
from locex.plugins.catalog import read_catalog
from locex.plugins.host import Host
from locex_controller.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from locex_controller.training.parameters import read_parameters


@pytest.fixture
def fedavg():
    host = Host()
    return host.aggregation(host.configure(host.load(read_catalog().find("aggregation", "fedavg")), {}))


def test_fedavg_weights_by_examples(fedavg):
    parts = [Contribution([np.array([1.0, 2.0], np.float32)], 3, {}), Contribution([np.array([5.0, 6.0])], 1, {})]
    np.testing.assert_array_equal(fedavg.aggregate(1, [np.zeros(2)], parts)[0], [2.0, 3.0])


def test_fedavg_of_nodes_that_name_no_examples_is_the_mean(fedavg):
    parts = [Contribution([np.array(1.0)], 0, {}), Contribution([np.array(4.0)], 0, {})]
    assert fedavg.aggregate(1, [np.zeros(())], parts)[0] == 2.5


def test_a_checkpoint_keeps_order_types_and_the_state_with_its_arrays(tmp_path):
    parameters = [np.ones((2, 1), np.float32), np.array(3, np.int64), np.zeros(2, np.float16)]
    moments = {"m": [np.arange(3.0), np.array(2.0)], "step": 4, "clip": 0.5}
    write_checkpoint(tmp_path, Checkpoint(1, ["z", "b", "a"], parameters, {"m": [np.zeros(1)]}))
    write_checkpoint(tmp_path, Checkpoint(2, ["z", "b", "a"], parameters, moments))
    saved = read_checkpoint(tmp_path)
    assert (saved.round, saved.names) == (2, ["z", "b", "a"])
    for kept, written in zip(saved.parameters, parameters, strict=True):
        np.testing.assert_array_equal(kept, written)
        assert (kept.dtype, kept.shape) == (written.dtype, written.shape)
    np.testing.assert_array_equal(saved.state["m"][0], moments["m"][0])
    assert (saved.state["step"], saved.state["clip"]) == (4, 0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.safetensors", "state-2.safetensors"]


def test_unnamed_parameters_stay_unnamed(tmp_path):
    write_checkpoint(tmp_path, Checkpoint(0, [], [np.zeros(1), np.ones(1)], {}))
    assert read_checkpoint(tmp_path).names == []


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match="no readable safetensors"):
        read_parameters(path)


def test_an_order_that_names_other_tensors_is_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"a": np.zeros(1)}, path, metadata={"names": json.dumps(["b"])})
    with pytest.raises(InvalidModel, match="names other tensors"):
        read_parameters(path)
