"""Infer over HTTP: JSON and bytes in every mixture, by each way in."""

from __future__ import annotations

import gzip
import json
import zlib
from multiprocessing import shared_memory

import ml_dtypes
import numpy as np
import pytest

from locex_inference.tensors import DTYPES

X = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]]
LENGTH = "Inference-Header-Content-Length"


def tensor(name="x", datatype="FP32", shape=(2, 3), data=None, **parameters):
    told = {"name": name, "datatype": datatype, "shape": list(shape)}
    if data is not None:
        told["data"] = data
    if parameters:
        told["parameters"] = parameters
    return told


def packed(content, *parts):
    """Return body and headers of a request with bytes after the JSON."""
    head = json.dumps(content).encode()
    return {"data": b"".join((head, *parts)), "headers": {LENGTH: str(len(head))}}


def unpacked(reply):
    """Return the JSON of a reply and the bytes of its outputs by name."""
    length = int(reply.headers[LENGTH])
    content, tail, found = json.loads(reply.body[:length]), reply.body[length:], {}
    for output in content["outputs"]:
        if (size := output.get("parameters", {}).get("binary_data_size")) is not None:
            found[output["name"]], tail = tail[:size], tail[size:]
    assert not tail
    return content, found


def output(reply, name):
    assert reply.status == 200, reply.body
    return next(each for each in json.loads(reply.body)["outputs"] if each["name"] == name)


@pytest.mark.parametrize("data", [X, [*X[0], *X[1]]])
async def test_json_nested_and_flat(server, data):
    reply = await server.infer("double", {"id": "42", "inputs": [tensor(data=data)]})
    content = json.loads(reply.body)
    assert reply.headers["Content-Type"] == "application/json"
    assert (content["model_name"], content["model_version"], content["id"]) == ("double", "1", "42")
    assert output(reply, "y") == tensor("y", data=[2.0, 4.0, 6.0, 8.0, 10.0, 13.0])
    assert output(reply, "total") == tensor("total", shape=(2, 1), data=[6.0, 15.5])


async def test_json_without_a_content_type_and_with_a_version(server):
    body = json.dumps({"inputs": [tensor(data=X)]}).encode()
    reply = await server.ask("POST", "v2/models/double/versions/1/infer", data=body, skip_auto_headers=["Content-Type"])
    assert output(reply, "total")["data"] == [6.0, 15.5]


async def test_only_the_outputs_that_are_asked_for(server):
    reply = await server.infer("double", {"inputs": [tensor(data=X)], "outputs": [{"name": "total"}]})
    assert [each["name"] for each in json.loads(reply.body)["outputs"]] == ["total"]
    assert server.inferencers["double"].asked[-1] == ("total",)


async def test_bytes_in_and_out(server):
    raw = np.array(X, np.float32).tobytes()
    content = {"inputs": [tensor(binary_data_size=len(raw))], "parameters": {"binary_data_output": True}}
    reply = await server.ask("POST", "v2/models/double/infer", **packed(content, raw))
    assert reply.headers["Content-Type"] == "application/octet-stream"
    _, found = unpacked(reply)
    np.testing.assert_array_equal(np.frombuffer(found["y"], "<f4").reshape(2, 3), 2 * np.array(X))
    np.testing.assert_array_equal(np.frombuffer(found["total"], "<f4"), [6, 15.5])


async def test_bytes_for_one_output_and_json_for_the_other(server):
    outputs = [
        {"name": "total", "parameters": {"binary_data": True}},
        {"name": "y", "parameters": {"binary_data": False}},
    ]
    reply = await server.infer("double", {"inputs": [tensor(data=X)], "outputs": outputs})
    content, found = unpacked(reply)
    assert set(found) == {"total"}
    assert {each["name"] for each in content["outputs"] if "data" in each} == {"y"}


SAMPLES = {
    "BOOL": [[True, False]],
    "FP16": [[0.5, -2.0]],
    "BF16": [[0.5, -2.0]],
    "BYTES": [["ä", ""]],
} | {name: [[1, 100]] for name in DTYPES if name.startswith(("UINT", "INT"))}


async def test_every_data_type_as_json_comes_back(server):
    inputs = [tensor(name.lower(), name, (1, 2), SAMPLES.get(name, [[0.25, -1.5]])) for name in DTYPES]
    reply = await server.infer("echo", {"inputs": inputs})
    for each in inputs:
        told = output(reply, f"{each['name']}_out")
        assert told["datatype"] == each["datatype"]
        assert told["data"] == each["data"][0]


async def test_every_data_type_as_bytes_comes_back(server):
    raws = {}
    for name, dtype in DTYPES.items():
        if name == "BYTES":
            raws[name] = b"\x02\0\0\0\xff\xfe\0\0\0\0"
        else:
            raws[name] = np.array([1, 0], dtype).tobytes()
    inputs = [tensor(name.lower(), name, (1, 2), binary_data_size=len(raw)) for name, raw in raws.items()]
    content = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    _, found = unpacked(await server.ask("POST", "v2/models/echo/infer", **packed(content, *raws.values())))
    assert found == {f"{name.lower()}_out": raw for name, raw in raws.items()}
    assert np.frombuffer(found["bf16_out"], ml_dtypes.bfloat16).tolist() == [1.0, 0.0]


async def test_bytes_that_are_no_text_cannot_be_told_as_json(server):
    inputs = [tensor("text", "BYTES", (1, 1), binary_data_size=6)]
    reply = await server.ask("POST", "v2/models/upper/infer", **packed({"inputs": inputs}, b"\x02\0\0\0\xff\xfe"))
    assert reply.status == 400
    assert "JSON" in json.loads(reply.body)["error"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_both_ways(server, encoding):
    rows = 300
    body = json.dumps({"inputs": [tensor(shape=(rows, 3), data=[1.5] * 3 * rows)]}).encode()
    squeezed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    headers = {"Content-Encoding": encoding, "Accept-Encoding": encoding}
    reply = await server.ask("POST", "v2/models/double/infer", data=squeezed, headers=headers)
    assert reply.headers["Content-Encoding"] == encoding
    assert output(reply, "y")["data"] == [3.0] * 3 * rows


async def test_deflate_without_zlibs_header_is_taken(server):
    encoder = zlib.compressobj(wbits=-15)
    body = encoder.compress(json.dumps({"inputs": [tensor(data=X)]}).encode()) + encoder.flush()
    reply = await server.ask("POST", "v2/models/double/infer", data=body, headers={"Content-Encoding": "deflate"})
    assert output(reply, "total")["data"] == [6.0, 15.5]


@pytest.mark.parametrize("rows", [1, 700, 30_000])
async def test_many_numbers_as_json(start, rows):
    values = np.random.default_rng(1).normal(size=(rows, 3)).astype(np.float32)
    roomy = await start("fast", body_limit=64 << 20)
    reply = await roomy.infer("double", {"inputs": [tensor(shape=(rows, 3), data=values.tolist())]})
    np.testing.assert_array_equal(np.array(output(reply, "y")["data"], np.float32), (2 * values).ravel())


async def test_class_count(server):
    outputs = [{"name": "y", "parameters": {"classification": 2}}]
    reply = await server.infer("double", {"inputs": [tensor(data=X)], "outputs": outputs})
    assert output(reply, "y") == {
        "name": "y",
        "datatype": "BYTES",
        "shape": [2, 2],
        "data": ["6.000000:2", "4.000000:1", "13.000000:2", "10.000000:1"],
    }


async def test_tensors_in_shared_memory(server):
    values = np.array(X, np.float32)
    region = shared_memory.SharedMemory(create=True, size=2 * values.nbytes)
    try:
        region.buf[: values.nbytes] = values.tobytes()
        told = {"key": region.name, "offset": 0, "byte_size": 2 * values.nbytes}
        path = "v2/systemsharedmemory/region/mine/register"
        assert (await server.ask("POST", path, json=told)).status == 200
        status = json.loads((await server.ask("GET", "v2/systemsharedmemory/status")).body)
        assert [(each["name"], each["byte_size"]) for each in status] == [("mine", 2 * values.nbytes)]
        place = {"shared_memory_region": "mine", "shared_memory_byte_size": values.nbytes}
        there = place | {"shared_memory_offset": values.nbytes}
        content = {"inputs": [tensor(**place)], "outputs": [{"name": "y", "parameters": there}]}
        reply = await server.infer("double", content)
        assert output(reply, "y")["parameters"] == there
        np.testing.assert_array_equal(np.frombuffer(region.buf[values.nbytes :], "<f4").reshape(2, 3), 2 * values)
        assert (await server.ask("POST", "v2/systemsharedmemory/region/mine/unregister")).status == 200
        assert (await server.infer("double", content)).status == 404
    finally:
        region.close()
        region.unlink()
