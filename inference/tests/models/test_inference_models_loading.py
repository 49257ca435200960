"""Loading: what is served in the end, what is refused and why, and that the old version goes on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading

import numpy as np
import pytest

from locex.errors import CrashedPlugin, InvalidConfiguration, InvalidModel, LocexError, StoreUnavailable
from locex_inference.errors import UnknownServed
from locex_inference.models.options import ModelOptions
from locex_inference.models.repository import ModelFolder
from locex_inference.models.serving_folder import ModelRepository

X = np.array([[1, 2], [3, 4]], np.float32)


def answered(version, x=X):
    return version.inferencer.run({"x": x}, ["y"])["y"]


def index(loader):
    return {entry.version: (entry.state, entry.reason) for entry in loader.registry.index()}


# --- what is served ---------------------------------------------------------------------------------------------------


async def test_a_model_is_loaded_warmed_up_and_served_in_this_process(loader, models):
    path = models.write(models.linear(3))
    version = await loader.load("m", "1", path, ModelOptions(warmup=[1, 4]))
    assert np.array_equal(answered(version), 3 * X)
    assert version.in_process
    assert version.platform == "onnxruntime_onnx"
    assert version.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [(info.name, info.datatype, info.shape) for info in version.inputs] == [("x", "FP32", (-1, 2))]
    assert sorted(version.costs) == [1, 4]
    assert all(cost > 0 for cost in version.costs.values())
    assert version.batching  # a call costs the same for one and for four
    assert loader.registry.choose("m") is version
    assert index(loader) == {"1": ("READY", "")}


async def test_older_versions_go_when_a_newer_one_is_served_and_nothing_names_them(loader, models):
    for number in range(1, 5):
        await loader.load("m", str(number), models.write(models.linear(number), f"{number}.onnx"))
    await loader.close()
    assert index(loader)["1"] == ("UNAVAILABLE", "version '3' took its place")
    assert index(loader)["4"] == ("UNAVAILABLE", "the service ends")


async def test_files_that_came_as_bytes_are_kept_while_the_version_is_served(loader, models, tmp_path):
    content = models.write(models.linear()).read_bytes()
    version = await loader.load("m", "1", {"model.onnx": content})
    assert np.array_equal(answered(version), 2 * X)
    assert len([*(tmp_path / "kept").iterdir()]) == 1
    await loader.registry.retire(version)
    assert [*(tmp_path / "kept").iterdir()] == []


@pytest.mark.parametrize("mode", ["off", "auto", "on"])
async def test_requests_are_joined_only_where_rows_stand_for_themselves(loader, models, mode):
    mean = models.tensor(np.array([0]), "axes")
    nodes = [models.node("ReduceMean", ["x", "axes"], ["m"], keepdims=1), models.node("Sub", ["x", "m"], ["y"])]
    path = models.write(models.graph(nodes, ["b", 2], ["b", 2], mean))
    if mode == "on":
        with pytest.raises(InvalidConfiguration, match=r"micro_batching is on, but requests for this model cannot be"):
            await loader.load("m", "1", path, ModelOptions(micro_batching=mode))
        version = await loader.load(
            "m", "2", models.write(models.linear(), "2.onnx"), ModelOptions(micro_batching="on")
        )
        assert version.batching
    else:
        assert not (await loader.load("m", "1", path, ModelOptions(micro_batching=mode))).batching


async def test_a_fixed_batch_is_warmed_up_as_it_is(loader, models):
    weights = models.tensor(np.eye(2, dtype=np.float32), "w")
    path = models.write(models.graph([models.node("MatMul", ["x", "w"], ["y"])], [4, 2], [4, 2], weights))
    version = await loader.load("m", "1", path)
    assert list(version.costs) == [4]
    assert not version.batching


async def test_loading_runs_in_one_thread_of_low_priority_and_leaves_none_behind(make_loader, models):
    loader = make_loader()
    await loader.load("m", "1", models.write(models.linear()))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")] == ["loader_0"]
    await loader.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")] == []


# --- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "name", "values"),
    [
        ("FLOAT16", "FP16", np.array([[1, 2]], np.float16)),
        ("DOUBLE", "FP64", np.array([[1, 2]], np.float64)),
        ("INT64", "INT64", np.array([[1, -2]], np.int64)),
        ("UINT8", "UINT8", np.array([[1, 255]], np.uint8)),
        ("BOOL", "BOOL", np.array([[True, False]])),
        ("STRING", "BYTES", np.array([[b"a", "grüße".encode()]], object)),
    ],
)
async def test_tensors_of_every_type_go_through(loader, models, of, name, values):
    kind = getattr(models.types, of)
    path = models.write(models.graph([models.node("Identity", ["x"], ["y"])], ["b", 2], ["b", 2], of=kind))
    version = await loader.load("m", "1", path, ModelOptions(warmup=[1]))
    assert (version.inputs[0].datatype, version.outputs[0].datatype) == (name, name)
    found = answered(version, values)
    assert found.dtype == values.dtype
    assert found.tolist() == values.tolist()


async def test_bfloat16_goes_through(loader, models):
    import ml_dtypes

    kind = models.types.BFLOAT16
    nodes = [models.node("Cast", ["x"], ["f"], to=models.types.FLOAT), models.node("Cast", ["f"], ["y"], to=kind)]
    version = await loader.load("m", "1", models.write(models.graph(nodes, ["b", 2], ["b", 2], of=kind)))
    x = np.array([[1.5, -2]], ml_dtypes.bfloat16)
    assert version.inputs[0].datatype == "BF16"
    assert answered(version, x).dtype == ml_dtypes.bfloat16
    assert answered(version, x).tolist() == x.tolist()


# --- what is refused --------------------------------------------------------------------------------------------------


def nan_model(models):
    nodes = [models.node("Sub", ["x", "x"], ["z"]), models.node("Div", ["z", "z"], ["y"])]
    return models.write(models.graph(nodes, ["b", 2], ["b", 2]), "bad.onnx")


def custom_model(models):
    nodes = [models.node("Secret", ["x"], ["y"], domain="com.acme")]
    return models.write(models.graph(nodes, ["b", 2], ["b", 2], domains=["com.acme"]), "bad.onnx")


def lying_model(models):
    float32 = models.types.FLOAT
    nodes = [models.node("NonZero", ["x"], ["places"]), models.node("Cast", ["places"], ["y"], to=float32)]
    return models.write(models.graph(nodes, ["b", 2], ["b", 2]), "bad.onnx")


BAD = {
    "nan": (nan_model, "the model's output 'y' holds NaN or infinity on a sample of its inputs"),
    "custom": (custom_model, "operators of the domain 'com.acme', which are not built into onnxruntime"),
    "cut": (lambda m: m.write(m.linear().SerializeToString()[:-20], "bad.onnx"), "the artefact is a corrupt ONNX file"),
    "noise": (lambda m: m.write(b"\x00" * 100, "bad.onnx"), "the artefact is a corrupt ONNX file|of an unknown format"),
    "empty": (lambda m: m.write(b"", "bad.onnx"), "empty"),
    "pickle": (lambda m: m.write(b"\x80\x04K\x01.", "bad.pkl"), "a pickle, which could run any code when loaded"),
    "absurd": (
        lambda m: m.write(m.graph([m.node("Identity", ["x"], ["y"])], ["b", 2**40], ["b", 2**40]), "bad.onnx"),
        "one example of the model's inputs takes 4,194,304 MiB, served are up to 256",
    ),
    "lying": (lying_model, r"the model declares 'y' as FP32 \[2, 2\] and gives FP32 \[2, 4\]"),
    "outside": (lambda m: m.external("../secret", "bad.onnx")[0], "'../secret', which is not a path within"),
    "absolute": (lambda m: m.external("/etc/passwd", "bad.onnx")[0], "'/etc/passwd', which is not a path within"),
    "absent": (lambda m: m.external("w.bin", "bad.onnx")[0], "'w.bin', which is not in the version's folder"),
}


@pytest.mark.parametrize("fault", BAD)
async def test_a_bad_model_is_refused_with_its_reason_and_the_old_one_serves_on(loader, models, fault):
    good = await loader.load("m", "1", models.write(models.linear()), ModelOptions(warmup=[1]))
    make, reason = BAD[fault]
    with pytest.raises(InvalidModel, match=reason):
        await loader.load("m", "2", make(models))
    state, told = index(loader)["2"]
    assert state == "UNAVAILABLE"
    assert told
    assert loader.registry.choose("m") is good
    assert np.array_equal(answered(good), 2 * X)


class _Slow(dict):
    """Files that take until somebody lets them."""

    def __init__(self, **files):
        super().__init__(files)
        self.begun, self.gate = threading.Event(), threading.Event()

    def items(self):
        self.begun.set()
        assert self.gate.wait(60)
        return super().items()


async def test_files_of_a_load_whose_caller_is_gone_do_not_stay(loader, tmp_path):
    files = _Slow(model=b"")
    loading = asyncio.create_task(loader.load("m", "1", files))
    await asyncio.to_thread(files.begun.wait)
    loading.cancel()
    await asyncio.sleep(0)
    files.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert [*(tmp_path / "kept").iterdir()] == []


async def test_files_that_a_killed_service_left_go(loader, models, tmp_path):
    left = tmp_path / "kept" / "model-left"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"large")
    os.utime(left, (0, 0))
    await loader.load("m", "1", {"model.onnx": models.write(models.linear()).read_bytes()})
    assert not left.exists()


async def test_files_that_cannot_be_kept_are_refused_with_the_reason(make_loader, loader, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="File exists"):
        await make_loader(folder=tmp_path / "file").load("m", "1", {"model.onnx": b"x"})
    with pytest.raises(InvalidModel, match="path of a folder"):
        await loader.load("m", "1", {"a": b"x", "a/b": b"x"})
    assert [*(tmp_path / "kept").iterdir()] == []


async def test_golden_outputs_nested_too_deep_are_refused(loader):
    with pytest.raises(InvalidModel, match="cannot be used"):
        await loader.load("m", "1", {"model.onnx": b"x", "golden.json": b"[" * 100_000})


async def test_a_failed_reload_of_the_same_version_leaves_it_as_it_was(loader, models):
    good = await loader.load("m", "1", models.write(models.linear()))
    with pytest.raises(InvalidModel):
        await loader.load("m", "1", nan_model(models))
    assert loader.registry.choose("m", "1") is good
    assert index(loader)["1"][1].startswith("served as it was loaded before; then: the model's output 'y' holds NaN")


async def test_weights_beside_the_model_are_taken_and_part_of_its_digest(loader, models):
    path, raw = models.external("w.bin", "1/model.onnx")
    (path.parent / "w.bin").write_bytes(raw)
    first = await loader.load("m", "1", path.parent, ModelOptions(warmup=[1]))
    assert np.array_equal(answered(first), 2 * X)
    (path.parent / "w.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    second = await loader.load("m", "2", path.parent, ModelOptions(warmup=[1]))
    assert np.array_equal(answered(second), X)
    assert first.digest != second.digest


async def test_weights_behind_a_link_or_too_few_of_them_are_refused(loader, models, tmp_path):
    path, raw = models.external("w.bin", "1/model.onnx")
    (tmp_path / "secret").write_bytes(raw)
    (path.parent / "w.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidModel, match=r"'w.bin', which is no plain file"):
        await loader.load("m", "1", path.parent)
    (path.parent / "w.bin").unlink()
    (path.parent / "w.bin").write_bytes(raw[:-1])
    with pytest.raises(InvalidModel, match=r"'w.bin', which has 15 bytes, the model wants 16"):
        await loader.load("m", "1", path.parent)


async def test_a_digest_that_is_another_is_refused(loader, models):
    with pytest.raises(InvalidModel, match=r"has the sha256 [0-9a-f]{64}, not 00"):
        await loader.load("m", "1", models.write(models.linear()), digest="00")


@pytest.mark.parametrize("name", ["../m", "", "a/b", ".hidden", "a" * 129])
async def test_names_that_are_no_names_are_refused(loader, models, name):
    with pytest.raises(InvalidModel, match=r"is no name|is no path"):
        await loader.load(name, "1", models.write(models.linear()))
    with pytest.raises(InvalidModel, match=r"is no name|is no path"):
        await loader.load("m", "1", {f"../{name}": b"x"})


# --- golden outputs ---------------------------------------------------------------------------------------------------


def golden_json(y):
    tensor = {"datatype": "FP32", "shape": [2, 2]}
    return json.dumps(
        {
            "inputs": [{"name": "x", "data": X.ravel().tolist(), **tensor}],
            "outputs": [{"name": "y", "data": y, **tensor}],
        }
    )


async def test_golden_outputs_decide(loader, models):
    path = models.write(models.linear(2), "1/model.onnx")
    (path.parent / "golden.json").write_text(golden_json([2, 4, 6, 8.001]))
    await loader.load("m", "1", path.parent)
    (path.parent / "golden.json").write_text(golden_json([2, 4, 6, 9]))
    with pytest.raises(InvalidModel, match=r"output 'y' differs from the golden one by 0\.1, allowed is 0\.001"):
        await loader.load("m", "2", path.parent)
    await loader.load("m", "2", path.parent, ModelOptions(tolerance=0.2))
    (path.parent / "golden.json").unlink()
    np.savez(path.parent / "golden.npz", **{"inputs/x": X, "outputs/y": X})
    with pytest.raises(InvalidModel, match=r"differs from the golden one"):
        await loader.load("m", "3", path.parent)
    (path.parent / "golden.npz").write_bytes(b"PK")
    with pytest.raises(InvalidModel, match=r"golden.npz cannot be used"):
        await loader.load("m", "3", path.parent)


# --- crashes ----------------------------------------------------------------------------------------------------------


async def test_what_crashes_hangs_or_takes_all_memory_while_it_is_loaded_costs_nothing(make_loader, models):
    loader = make_loader(terms={"load_timeout": 20})
    with pytest.raises(
        CrashedPlugin, match=r"ended the process with exit code 9; last lines:\nthe last words"
    ) as caught:
        await loader.load("m", "1", models.text("crash"))
    assert "the model 'm' version '1'" in str(caught.value)
    with pytest.raises(LocexError, match=r"takes more memory than the model's process may have") as caught:
        await loader.load("m", "2", models.text("greedy", "2.acme"))
    assert caught.value.error_code == "out-of-memory"
    with pytest.raises(InvalidModel, match=r"the artefact is no number"):
        await loader.load("m", "3", models.text("word", "3.acme"))
    assert {state for state, _ in index(loader).values()} == {"UNAVAILABLE"}


async def test_what_does_not_end_loading_is_ended(make_loader, models):
    loader = make_loader(terms={"load_timeout": 4})
    with pytest.raises(CrashedPlugin, match=r"did not end within 4 s"):
        await loader.load("m", "1", models.text("hang"))


# --- the folder of models ---------------------------------------------------------------------------------------------


@pytest.fixture
def folder(models):
    for model, versions in (("a", ("1", "2", "10")), ("b", ("v1",))):
        for version in versions:
            models.write(models.linear(int(version.removeprefix("v"))), f"{model}/{version}/model.onnx")
    (models.folder / ".git").mkdir()
    (models.folder / "no name").mkdir()
    return ModelFolder(models.folder)


async def test_the_newest_versions_of_the_folder_are_served(loader, models, folder):
    (models.folder / "a" / "model.json").write_text(json.dumps({"warmup": 1, "labels": {"first": "1"}}))
    assert await ModelRepository(loader, folder).load_all() == []
    assert loader.registry.labels("a") == {"latest": "10", "stable": "10", "first": "1"}
    assert [one.version for one in loader.registry.versions("a")] == ["1", "2", "10"]
    assert np.array_equal(answered(loader.registry.choose("b")), X)


async def test_a_request_loads_what_changed_in_the_folder_and_leaves_the_rest(loader, models, folder):
    repository = ModelRepository(loader, folder)
    await repository.load("a")
    before = {one.version: one for one in loader.registry.versions("a")}
    models.write(models.linear(5), "a/10/model.onnx")
    await repository.load("a")
    after = {one.version: one for one in loader.registry.versions("a")}
    assert after["2"] is before["2"]
    assert np.array_equal(answered(after["10"]), 5 * X)
    with pytest.raises(UnknownServed, match=r"there is no 'c' in the folder of models"):
        await repository.load("c")


async def test_one_bad_version_does_not_keep_the_others_from_being_served(loader, models, folder):
    models.write(b"", "a/10/model.onnx")
    faults = await ModelRepository(loader, folder).load_all()
    assert [fault.message.partition(",")[0] for fault in faults] == ["the artefact is empty"]
    assert loader.registry.choose("a").version == "2"
    assert loader.registry.choose("b").version == "v1"


async def test_a_request_may_bring_files_and_options(loader, models):
    repository = ModelRepository(loader)
    content = models.linear(7).SerializeToString()
    await repository.load("m", None, {"model.onnx": content})
    await repository.load("m", {"warmup": [1]}, {"file:8/model.onnx": content})
    await repository.load("m", {"name": "m", "backend": "onnxruntime", "dynamic_batching": {}}, {"model.onnx": content})
    await asyncio.sleep(0)  # the first goes
    assert [one.version for one in loader.registry.versions("m")] == ["8", "9"]
    assert loader.registry.choose("m").options.micro_batching == "on"
    with pytest.raises(InvalidConfiguration, match=r"/maximum: unknown key"):
        await repository.load("m", {"maximum": 3}, {"model.onnx": content})
    with pytest.raises(InvalidModel, match=r"must hold one model, it holds: a.onnx, b.onnx"):
        await repository.load("m", None, {"a.onnx": content, "b.onnx": content})
