"""Requests that cannot be answered: exact statuses, errors in the protocol's form, and a server that goes on."""

from __future__ import annotations

import gzip
import json

import pytest

from locex.web.auth import Access, Tokens

GOOD = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
LENGTH = "Inference-Header-Content-Length"


def changed(**changes):
    return json.dumps({"inputs": [GOOD | changes]})


def lacking(name):
    return json.dumps({"inputs": [{key: value for key, value in GOOD.items() if key != name}]})


def asking(**parameters):
    return json.dumps({"inputs": [GOOD], "outputs": [{"name": "y", "parameters": parameters}]})


BAD = {
    "no JSON": "{",
    "empty": "",
    "a list": "[]",
    "NaN": changed(data=[1, 2, float("nan")]),
    "no inputs": "{}",
    "inputs of another kind": '{"inputs": 3}',
    "an input of another kind": '{"inputs": [3]}',
    "no name": lacking("name"),
    "no datatype": lacking("datatype"),
    "no shape": lacking("shape"),
    "no data": lacking("data"),
    "an unknown datatype": changed(datatype="FP8"),
    "another datatype": changed(datatype="INT64"),
    "another name": changed(name="z"),
    "one input twice": json.dumps({"inputs": [GOOD, GOOD]}),
    "one input too many": json.dumps({"inputs": [GOOD, GOOD | {"name": "z"}]}),
    "another rank": changed(shape=[3]),
    "another size": changed(shape=[1, 4], data=[1, 2, 3, 4]),
    "a negative size": changed(shape=[-1, 3]),
    "a size that is none": changed(shape=[1.5, 2]),
    "a shape that is none": changed(shape="1,3"),
    "an absurd shape": changed(shape=[2**62, 2**62]),
    "no example": changed(shape=[0, 3], data=[]),
    "too few values": changed(data=[1, 2]),
    "too many values": changed(data=[1, 2, 3, 4]),
    "rows of different lengths": changed(data=[[1, 2], [3]]),
    "words for numbers": changed(data=["1", "2", "3"]),
    "booleans for numbers": changed(data=[True, False, True]),
    "an object for numbers": changed(data={"a": 1}),
    "null for numbers": changed(data=[None, 1, 2]),
    "numbers beyond every type": changed(data=[1, 2, 10**400]),
    "deep nesting": changed(data=0).replace('"data": 0', '"data": ' + "[" * 90_000 + "]" * 90_000),
    "an id of another kind": json.dumps({"inputs": [GOOD], "id": 7}),
    "parameters of another kind": json.dumps({"inputs": [GOOD], "parameters": [1]}),
    "outputs of another kind": json.dumps({"inputs": [GOOD], "outputs": "y"}),
    "an output without a name": json.dumps({"inputs": [GOOD], "outputs": [{}]}),
    "an unknown output": json.dumps({"inputs": [GOOD], "outputs": [{"name": "z"}]}),
    "an output twice": json.dumps({"inputs": [GOOD], "outputs": [{"name": "y"}, {"name": "y"}]}),
    "binary_data of another kind": asking(binary_data="yes"),
    "classes of another kind": asking(classification="two"),
    "half a place in shared memory": asking(shared_memory_region="r"),
    "a negative timeout": json.dumps({"inputs": [GOOD], "parameters": {"timeout": -1}}),
    "binary_data_size without bytes": changed(parameters={"binary_data_size": 12}),
    "a binary_data_size that is none": changed(parameters={"binary_data_size": -12}),
    "half a surrogate pair": '{"inputs": [{"name": "\\ud800", "datatype": "FP32", "shape": [1], "data": [1]}]}',
}


def fault(reply, status):
    assert reply.status == status, reply.body
    content = json.loads(reply.body)
    assert isinstance(content["error"], str)
    assert content["error"]
    return content["error"]


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
async def test_bad_requests_are_400_and_the_next_one_is_answered(server, body):
    fault(await server.ask("POST", "v2/models/double/infer", data=body.encode()), 400)
    good = await server.infer("double", {"inputs": [GOOD]})
    assert json.loads(good.body)["outputs"][0]["data"] == [2, 4, 6]


@pytest.mark.parametrize(
    ("content", "tail", "length"),
    [
        (12, b"\0" * 11, None),
        (12, b"\0" * 13, None),
        (12, b"\0" * 12, "9999"),
        (12, b"\0" * 12, "-1"),
        (12, b"\0" * 12, "x"),
        (8, b"\0" * 8, None),
        (2**70, b"", None),
        ("12", b"\0" * 12, None),
    ],
)
async def test_bytes_that_do_not_fit_are_400(server, content, tail, length):
    head = changed(data=None, parameters={"binary_data_size": content}).replace('"data": null, ', "").encode()
    headers = {LENGTH: str(len(head)) if length is None else length}
    fault(await server.ask("POST", "v2/models/double/infer", data=head + tail, headers=headers), 400)


@pytest.mark.parametrize("raw", [b"", b"\1\0\0\0", b"\xff\xff\xff\xffab", b"\2\0\0\0ab!"])
async def test_texts_whose_lengths_do_not_fit_are_400(server, raw):
    told = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [told]}).encode()
    headers = {LENGTH: str(len(head))}
    fault(await server.ask("POST", "v2/models/upper/infer", data=head + raw, headers=headers), 400)


@pytest.mark.parametrize("path", ["none/infer", "double/versions/9/infer", "%2e%2e/infer", "dou%62le2/infer"])
async def test_an_unknown_model_or_version_is_404(server, path):
    body = json.dumps({"inputs": [GOOD]}).encode()
    fault(await server.ask("POST", f"v2/models/{path}", data=body), 404)


async def test_a_model_that_is_not_ready_is_503_and_says_when_to_come_back(server):
    server.registry.note("late", "1", "LOADING")
    reply = await server.infer("late", {"inputs": [GOOD]})
    assert "LOADING" in fault(reply, 503)
    assert int(reply.headers["Retry-After"]) >= 1


async def test_bodies_beyond_the_bound_are_413_compressed_or_not(start):
    for lane in ("fast", "aiohttp"):
        server = await start(lane, body_limit=10_000)
        body = changed(data=[1, 2, 3]).encode() + b" " * 20_000
        fault(await server.ask("POST", "v2/models/double/infer", data=body), 413)
        squeezed = gzip.compress(b"[" * 10_000_000)
        headers = {"Content-Encoding": "gzip"}
        fault(await server.ask("POST", "v2/models/double/infer", data=squeezed, headers=headers), 413)
        assert (await server.infer("double", {"inputs": [GOOD]})).status == 200


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"no gzip", 400),
        ("deflate", b"no deflate", 400),
        ("gzip", gzip.compress(changed().encode())[:-9], 400),
        ("br", changed().encode(), 415),
    ],
)
async def test_encodings_that_cannot_be_read(server, encoding, body, status):
    headers = {"Content-Encoding": encoding}
    fault(await server.ask("POST", "v2/models/double/infer", data=body, headers=headers), status)


async def test_a_model_that_raises_is_500_with_its_name_and_no_traceback(server):
    def broken(x):
        raise ZeroDivisionError("of course")

    server.inferencers["double"].function = broken
    text = fault(await server.infer("double", {"inputs": [GOOD]}), 500)
    assert "'double'" in text
    assert "ZeroDivisionError" in text
    assert "Traceback" not in text


async def test_nan_is_refused_where_the_options_say_so(server):
    server.add("strict", server.inferencers["double"], options={"nan": "refuse"})
    raw = b"\0\0\xc0\x7f" * 3
    told = {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}
    head = json.dumps({"inputs": [told]}).encode()
    request = {"data": head + raw, "headers": {LENGTH: str(len(head))}}
    assert "NaN" in fault(await server.ask("POST", "v2/models/strict/infer", **request), 400)
    assert (await server.ask("POST", "v2/models/double/infer", **request)).status == 200


async def test_more_examples_than_the_options_allow_are_400(server):
    server.add("bounded", server.inferencers["double"], options={"max_batch_size": 2})
    good = {"inputs": [GOOD | {"shape": [2, 3], "data": [1] * 6}]}
    assert (await server.infer("bounded", good)).status == 200
    fault(await server.infer("bounded", {"inputs": [GOOD | {"shape": [3, 3], "data": [1] * 9}]}), 400)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("index", b"["),
        ("index", b"[]"),
        ("models/double/load", b'{"parameters": 1}'),
        ("models/double/load", b'{"parameters": {"config": "{"}}'),
        ("models/double/load", b'{"parameters": {"config": "[]"}}'),
        ("models/double/load", b'{"parameters": {"file:1/model.onnx": "?"}}'),
        ("models/double/load", b'{"parameters": {"file:1/model.onnx": 5}}'),
    ],
)
async def test_bad_repository_requests_are_400(server, path, body):
    fault(await server.ask("POST", f"v2/repository/{path}", data=body), 400)


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("read:reader\nrun:runner\nadmin:boss\n")
    file.chmod(0o600)
    return Tokens(file)


@pytest.mark.parametrize("lane", ["fast", "aiohttp"])
async def test_tokens_say_who_may(start, tokens, lane):
    server = await start(lane, access=Access(tokens))
    body = json.dumps({"inputs": [GOOD]}).encode()

    async def status(method, path, token=None, data=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return (await server.ask(method, path, data=data, headers=headers)).status

    infer = ("POST", "v2/models/double/infer")
    assert [await status(*infer, token, body) for token in (None, "wrong", "reader", "runner")] == [401, 401, 403, 200]
    assert [await status("GET", "v2/models/double", token) for token in (None, "reader")] == [401, 200]
    load = ("POST", "v2/repository/models/double/unload")
    assert [await status(*load, token, b"[") for token in ("runner", "boss")] == [403, 400]
    assert await status("GET", "v2/health/ready") == 200
    refused = await server.ask(*infer, data=body)
    assert "error" in json.loads(refused.body)
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("lane", ["fast", "aiohttp"])
async def test_without_tokens_web_pages_from_elsewhere_are_refused(start, lane):
    server = await start(lane)
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        fault(await server.infer("double", {"inputs": [GOOD]}, headers=headers), 403)
