"""Models over HTTP, as controllers and people store them on a node."""

from __future__ import annotations

import io

import aiohttp
import pytest

META = {"model_name": "cnn", "model_version": "1.0", "meta": {"library": "tiny", "description": "small"}}


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_model_is_stored_listed_read_and_deleted(open_node, slash):
    node = await open_node()
    posted = await node.call("POST", f"/model{slash}", json=META)
    assert posted["digest"] is None
    assert await node.call("GET", f"/model{slash}") == [posted]

    missing = await node.call("GET", f"/model/cnn/1.0{slash}", status=404)
    assert "bytes have not arrived" in missing["detail"]
    await node.call("PUT", f"/model/cnn/1.0{slash}", status=204, data=b"weights")
    assert await node.call("GET", f"/model/cnn/1.0{slash}") == b"weights"
    stored = await node.call("GET", f"/model/meta{slash}", params={"model_name": "cnn", "model_version": "1.0"})
    assert stored["size"] == 7
    assert stored["meta"] == META["meta"]
    assert (await node.call("GET", "/capabilities"))["available_models"] == {"cnn": ["1.0"]}

    assert await node.call("DELETE", f"/model/cnn/1.0{slash}", status=204) == b""
    for method, path in (("GET", "/model/cnn/1.0"), ("PUT", "/model/cnn/1.0"), ("DELETE", "/model/cnn/1.0")):
        problem = await node.call(method, path, status=404, data=b"x" if method == "PUT" else None)
        assert problem["code"] == "model-unknown"


async def test_a_form_brings_new_bytes_for_a_model(node):
    form = aiohttp.FormData()
    form.add_field("file", b"another artefact", filename="model.zip", content_type="application/zip")
    await node.call("PUT", "/model/m/1", status=204, data=form)
    assert await node.call("GET", "/model/m/1") == b"another artefact"


async def test_uploads_that_cannot_be_are_refused_and_leave_the_model_as_it_was(open_node):
    node = await open_node(max_model_mb=1)
    await node.put_model()
    before = await node.call("GET", "/model/m/1")
    assert (await node.call("POST", "/model/", 409, json=META | {"model_name": "m", "model_version": "1"}))["code"] == (
        "model-duplicate"
    )
    assert (await node.call("PUT", "/model/m/1", 413, data=io.BytesIO(bytes(2**20 + 1))))["code"] == "too-large"
    assert (await node.call("PUT", "/model/m/1", 400, data=b""))["code"] == "body-malformed"
    assert (await node.call("PUT", "/model/m/1", 415, json={}))["code"] == "media-type-unsupported"
    assert (await node.call("PUT", "/model/m/..%2f1", 422, data=b"x"))["code"] == "request-invalid"
    invalid = await node.call("POST", "/model/", 422, json={"model_name": "a/b", "model_version": 1})
    assert {fault["path"] for fault in invalid["errors"]} == {"/model_name", "/model_version", "/meta"}
    assert await node.call("GET", "/model/m/1") == before


async def test_the_files_of_a_training_are_read_by_name(node):
    await node.submit()
    stored = (await node.end())["model"]
    path = f"/model/{stored['model_name']}/{stored['model_version']}"
    assert list(stored["files"]) == ["model.safetensors"]
    assert await node.call("GET", f"{path}/files/model.safetensors") == await node.call("GET", path)
    missing = await node.call("GET", f"{path}/files/model.onnx", 404)
    assert "'model.onnx'" in missing["detail"]
    assert (await node.call("GET", "/model/m/1/files/model.onnx", 404))["code"] == "model-unknown"


async def test_a_job_keeps_the_model_of_each_round_until_the_next(node):
    await node.submit(export={"each_round": True, "model_version": "trained"}, num_rounds=4)
    record = await node.end()
    versions = {model["model_version"]: model for model in await node.call("GET", "/model/")}
    assert sorted(versions) == ["1", "trained"]
    assert versions["trained"]["lineage"]["interim"] is False
    assert record["model"]["model_version"] == "trained"


async def test_a_stopped_job_leaves_the_model_of_its_last_round(node):
    await node.submit(export={"each_round": True}, num_rounds=1000)

    def evaluated(event):
        content = event["data"]["content"]
        return event["event"] == "round" and content.get("evaluation") and content["round"] > 2

    await node.events(until=evaluated)
    await node.call("DELETE", "/job/t")
    await node.end()
    (kept,) = [model for model in await node.call("GET", "/model/") if model["model_version"] != "1"]
    assert kept["lineage"]["interim"] is True
    assert kept["model_version"].endswith(f"-round{kept['lineage']['round']}")
    assert await node.call("GET", f"/model/m/{kept['model_version']}")
