"""The guard: versions evaluated on local data, in a process of their own."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from locex.schemas.model import ModelMetadata
from locex_inference.following.errors import VersionRefused
from locex_inference.following.guard import Guard
from locex_inference.following.settings import FollowSettings
from locex_inference.inferencers.question import Question

RIGHT = np.array([[2.0, -1, 0], [-1, 2, 0], [0, 0, 1], [1, 0, -1]], np.float32)
NORM = [{"id": "basic_norm", "parameters": {"mean": 1.0, "std": 2.0}}]
JOB = {
    "server_address": "x:1",
    "model_name": "m",
    "model_version": "1",
    "privacy-mechanisms": {},
    "data": {"source": "npy"},
    "transformations": {"train": NORM, "test": NORM},
}


def linear(path, weights):
    """Write a linear model of four numbers."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["output"])],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", weights.shape[1]])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Local data of which the right weights, behind the normalisation, get every class."""
    folder = tmp_path / "data"
    folder.mkdir()
    x = np.random.default_rng(3).normal(size=(400, 4)).astype(np.float32)
    for name, part in (("train", x[:100]), ("test", x[100:])):
        np.save(folder / f"x_{name}.npy", part)
        np.save(folder / f"y_{name}.npy", ((part - 1) / 2 @ RIGHT).argmax(1))
    monkeypatch.setenv("DATA_FOLDER", str(folder))
    return folder


@pytest.fixture
def question(tmp_path):
    """Make the question for a version of these weights."""

    def made(name, weights):
        path = linear(tmp_path / f"{name}.onnx", np.asarray(weights))
        return Question(artefact=path, digest=hashlib.sha256(path.read_bytes()).hexdigest(), name="m", version=name)

    return made


METADATA = ModelMetadata(model_name="m", model_version="2", meta={"library": "pytorch"})


async def examine(candidate, served=None, configuration=JOB, **settings):
    return await Guard(FollowSettings(**settings)).examine(METADATA, candidate, served, configuration)


async def test_versions_are_scored_on_the_test_split_behind_the_trainings_pipeline(data, question):
    report = await examine(question("new", RIGHT), question("old", RIGHT))
    assert report.candidate.score.value == report.served.score.value == 1
    assert report.examples == 300
    assert (await examine(question("new", RIGHT), guard_examples=50)).examples == 50


async def test_a_worse_version_is_refused_and_a_better_one_is_not(data, question):
    wrong = question("wrong", RIGHT[:, ::-1])
    with pytest.raises(VersionRefused, match=r"worse than the served version's 1 by more than the margin of 0\.02"):
        await examine(wrong, question("old", RIGHT))
    assert (await examine(question("new", RIGHT), wrong)).served.score.value < 0.9
    assert await examine(wrong, question("old", RIGHT), guard="off") is None
    assert await examine(wrong, question("old", RIGHT), guard_margin=1)


async def test_without_data_only_answers_are_looked_at(question, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_FOLDER", str(tmp_path / "nowhere"))
    report = await examine(question("new", RIGHT), question("old", -RIGHT))
    assert report.candidate.score is None
    assert report.note
    with pytest.raises(VersionRefused, match="could not be evaluated on local data"):
        await examine(question("new", RIGHT), guard="required")
    with pytest.raises(VersionRefused, match="not all finite"):
        await examine(question("nan", RIGHT * np.nan))
    with pytest.raises(VersionRefused, match=r"its outputs are output FP32 \[-1, 2\]"):
        await examine(question("narrow", RIGHT[:, :2]), question("old", RIGHT))


async def test_without_a_job_the_sites_data_and_pipelines_count(data, question):
    report = await examine(question("new", RIGHT), configuration=None)
    assert report.candidate.score.measure == "accuracy"
    assert report.candidate.score.value < 1  # the site has no normalisation


async def test_what_cannot_be_loaded_or_takes_too_long_is_refused(data, question, tmp_path):
    broken = question("broken", RIGHT)
    broken.artefact.write_bytes(b"\x08\x09 no model")
    broken.digest = hashlib.sha256(broken.artefact.read_bytes()).hexdigest()
    with pytest.raises(VersionRefused):
        await examine(broken)
    with pytest.raises(VersionRefused, match=r"did not end within 0\.01 s"):
        await examine(question("slow", RIGHT), guard_timeout=0.01)
