"""Model artefacts through a real node: programs that are trained and come back, and those that do harm."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
import zipfile

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor, nn

MEMORY = 1500  # MiB


class Net(nn.Module):
    """A small model of the digits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.hidden, self.norm, self.output = nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 10)

    def forward(self, x):
        return self.output(torch.relu(self.norm(self.hidden(x))))


class Greedy(Net):
    """Takes memory without end, in pieces."""

    def forward(self, x):
        taken: list[Tensor] = []
        while x.shape[0] > 0:
            taken.append(torch.rand([1000000]))
        return self.output(self.hidden(x)) + taken[0].sum()


class Endless(Net):
    """Never gives an answer."""

    def forward(self, x):
        while x.shape[0] > 0:
            x = x + 1
        return self.output(self.hidden(x))


def scripted(module):
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


def crashing():
    """Return a program whose source nests so deep that PyTorch's parser overflows its stack."""
    source, target = io.BytesIO(scripted(Net())), io.BytesIO()
    depth = 200_000
    with zipfile.ZipFile(source) as given, zipfile.ZipFile(target, "w") as changed:
        for name in given.namelist():
            content = given.read(name)
            if name.endswith(".py"):
                content = re.sub(
                    rb"return (.*)", lambda found: b"return " + b"(" * depth + found[1] + b")" * depth, content
                )
            changed.writestr(name, content)
    return target.getvalue()


def exported(module):
    buffer = io.BytesIO()
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(module, (torch.zeros(2, 64),), dynamic_shapes=shapes), buffer)
    return buffer.getvalue()


class PeakMemory:
    """The most resident memory that a job's worker was seen to have, in MiB."""

    def __init__(self, node, training_id):
        self.node, self.training_id, self.seen = node, training_id, 0.0

    def over(self, record):
        pid = (record["worker"] or {}).get("pid")
        with contextlib.suppress(psutil.NoSuchProcess):
            self.seen = max(self.seen, psutil.Process(pid).memory_info().rss / 2**20 if pid else 0)
        return record["state"] in {"FINISHED", "FAILED", "STOPPED"}


@pytest.fixture
def hostile(house_with):
    """Open a house with settings, whose repository holds programs that do harm."""

    def open_house(**environment):
        house = house_with(**environment)
        for name, content in (
            ("endless", scripted(Endless())),
            ("greedy", scripted(Greedy())),
            ("crashing", crashing()),
        ):
            house.add_model(name, content)
        return house

    return open_house


def failed(node, name, condition=lambda record: record["state"] == "FAILED"):
    """Return the record of a failed job, after which the service goes on as before."""
    record = node.reach(name, condition)
    assert record["state"] == "FAILED"
    assert record["resumes"] == 0
    assert node.call("GET", "/healthz").status_code == 200
    assert node.process.poll() is None
    return record["failure"]


def test_programs_that_take_all_memory_or_crash_cost_their_own_job_and_no_more(hostile):
    house = hostile(LOCEX_WORKER_MEMORY_MB=str(MEMORY))
    first, second = house.nodes
    first.post("greedy", house.job(model_name="greedy"))
    second.post("crashing", house.job(model_name="crashing"))

    peak = PeakMemory(first, "greedy")
    failure = failed(first, "greedy", peak.over)
    assert failure["kind"] == "out of memory", failure
    assert "LOCEX_WORKER_MEMORY_MB" in failure["remedy"]
    assert 0 < peak.seen < MEMORY + 500  # what the worker had before counts beside the limit

    failure = failed(second, "crashing")
    assert failure["kind"] == "crashed", failure
    assert "SIGSEGV" in failure["message"]


@pytest.mark.slow
def test_a_program_without_end_is_ended(hostile):
    house = hostile(LOCEX_PREPARE_TIMEOUT="15")
    node = house.nodes[0]
    node.post("endless", house.job(model_name="endless"))
    failure = failed(node, "endless")
    assert failure["kind"] == "timed out", failure
    assert "LOCEX_PREPARE_TIMEOUT" in failure["remedy"]


def test_programs_are_refused_where_the_operator_says_so(hostile):
    house = hostile(LOCEX_ALLOW_PROGRAMS="0")
    node = house.nodes[0]
    node.post("crashing", house.job(model_name="crashing"))
    failure = failed(node, "crashing")
    assert failure["code"] == "program-refused", failure
    assert "LOCEX_ALLOW_PROGRAMS" in failure["message"]


@pytest.fixture
def models(house):
    """Add models to the house's repository, and take them away at the end."""
    added = []

    def add(name, content, **metadata):
        added.append(name)
        house.add_model(name, content, **metadata)

    yield add
    for name in added:
        house.collector.call("DELETE", f"/model/{name}/1")


def test_a_program_of_torch_export_is_trained_and_comes_back(house, models):
    models("exported", exported(Net().train()))
    house.collect(2, model_name="exported")
    job = house.job(
        model_name="exported", export={"formats": ["safetensors", "torchscript"], "model_version": f"from-{house.id}"}
    )
    for node in house.nodes:
        node.post(house.id, job)
    records = [node.finished(house.id) for node in house.nodes]
    assert [one["round"] for one in records[0]["history"]] == [1, 2]
    assert house.accuracy(records) > 0.8
    assert sorted(records[0]["model"]["files"]) == ["model.pt", "model.pt2"]

    content = house.nodes[0].call("GET", f"/job/{house.id}/model").content
    program = torch.export.load(io.BytesIO(content))
    assert list(program.module().state_dict()) == list(Net().state_dict())
    assert not np.array_equal(program.state_dict["output.bias"].detach(), Net().state_dict()["output.bias"])
    metadata = house.nodes[0].call("GET", f"/model/meta?model_name=exported&model_version=from-{house.id}").json()
    assert metadata["meta"]["library"] == "pytorch"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(100), "the artefact is an HDF5 file (.h5)"),
        ("pickle", b"\x80\x04." + bytes(10), "the artefact is a pickle"),
    ],
)
def test_what_a_library_does_not_load_is_told_in_the_record(house, models, name, content, message):
    models(name, content)
    house.new_training()
    node = house.nodes[0]
    node.post(house.id, house.job(model_name=name))
    failure = failed(node, house.id)
    assert failure["code"] == "model-invalid"
    assert failure["message"].startswith(message)
