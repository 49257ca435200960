"""The fast way in, byte by byte: what it takes itself, what it lends to aiohttp, and what it hands over."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import numpy as np
import pytest

from locex.web.auth import Access, Tokens
from locex_inference.http import connections

BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}).encode()


def message(body=BODY, path="/v2/models/double/infer", method="POST", version="1.1", *fields):
    head = [f"{method} {path} HTTP/{version}", "Host: localhost", *fields]
    if body is not None:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + (body or b"")


GET = message(None, "/v2/health/live", "GET")


@asynccontextmanager
async def connected(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def answer(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status = int(head.split()[1])
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
    return status, await reader.readexactly(int(fields.get("content-length", 0)))


async def until(true):
    while not true():  # noqa: ASYNC110 -- what happens in the server tells nobody
        await asyncio.sleep(0)


def numbers(body):
    return json.loads(body)["outputs"][0]["data"]


async def test_one_connection_serves_many_requests_of_every_kind(fast):
    async with connected(fast) as (reader, writer):
        for _ in range(3):
            writer.write(message())
            status, body = await answer(reader)
            assert (status, numbers(body)) == (200, [2, 4, 6])
            writer.write(GET)
            assert await answer(reader) == (200, b'{"live":true}')
            writer.write(message(b"", "/v2/repository/index"))
            status, body = await answer(reader)
            assert status == 200
            assert json.loads(body)[0]["name"] == "double"


async def test_pipelined_requests_are_answered_in_order(fast):
    fast.add("late", fast.inferencers["upper"].__class__([("x", "FP32", (-1, 3))], [("y", "FP32", (-1, 3))],
             lambda x: {"y": -x}), costs={1: 1.0})  # fmt: skip
    async with connected(fast) as (reader, writer):
        late = message(path="/v2/models/late/infer")
        writer.write(late + message() + GET + late + message(path="/v2/models/none/infer") + message())
        assert numbers((await answer(reader))[1]) == [-1, -2, -3]
        assert numbers((await answer(reader))[1]) == [2, 4, 6]
        assert (await answer(reader))[1] == b'{"live":true}'
        assert numbers((await answer(reader))[1]) == [-1, -2, -3]
        assert (await answer(reader))[0] == 404
        assert numbers((await answer(reader))[1]) == [2, 4, 6]


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_requests_in_pieces_are_put_together(fast, size):
    whole = message() + GET + message()
    async with connected(fast) as (reader, writer):
        for begin in range(0, len(whole), size):
            writer.write(whole[begin : begin + size])
            await asyncio.sleep(0)
        assert numbers((await answer(reader))[1]) == [2, 4, 6]
        assert (await answer(reader))[1] == b'{"live":true}'
        assert numbers((await answer(reader))[1]) == [2, 4, 6]


WIDE = np.arange(300_000, dtype=np.float32)[None]


@pytest.fixture
async def wide(start):
    """A server with a model whose requests take more than a megabyte."""
    server = await start("fast", body_limit=64 << 20)
    tensors = [[(name, "FP32", (-1, WIDE.size))] for name in "xy"]
    server.add("wide", server.inferencers["double"].__class__(*tensors, lambda x: {"y": 2 * x}), costs={1: 1.0})
    return server


def large(form):
    tensor = {"name": "x", "datatype": "FP32", "shape": [*WIDE.shape]}
    content = {"inputs": [tensor], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    if form == "JSON":
        tensor["data"] = WIDE.ravel().tolist()
        return message(json.dumps(content).encode(), "/v2/models/wide/infer")
    tensor["parameters"] = {"binary_data_size": WIDE.nbytes}
    head = json.dumps(content).encode()
    field = f"Inference-Header-Content-Length: {len(head)}"
    return message(head + WIDE.tobytes(), "/v2/models/wide/infer", "POST", "1.1", field)


@pytest.mark.parametrize("form", ["JSON", "binary"])
@pytest.mark.parametrize("size", [1_000, 70_000, 3_000_000])
async def test_large_bodies_in_pieces_between_other_requests(wide, form, size):
    whole = GET + large(form) + message() + large(form) + GET
    async with connected(wide) as (reader, writer):
        answers = asyncio.create_task(_answers(reader, 5))
        for begin in range(0, len(whole), size):
            writer.write(whole[begin : begin + size])
            await writer.drain()
        (_, first), (status, body), (_, small), (_, again), (_, last) = await answers
        assert first == last == b'{"live":true}'
        assert status == 200
        assert body.endswith((2 * WIDE).tobytes())
        assert again == body
        assert numbers(small) == [2, 4, 6]


async def _answers(reader, count):
    return [await answer(reader) for _ in range(count)]


@pytest.mark.parametrize("length", ["99999999", "x"])
async def test_a_large_body_that_is_refused_leaves_the_connection_in_order(fast, length):
    field = f"Inference-Header-Content-Length: {length}"
    async with connected(fast) as (reader, writer):
        for part in (message(b"x" * 500_000, "/v2/models/double/infer", "POST", "1.1", field), message()):
            writer.write(part)
            await writer.drain()
        assert (await answer(reader))[0] == 400
        assert numbers((await answer(reader))[1]) == [2, 4, 6]


async def test_a_caller_that_goes_in_the_middle_of_a_large_body_is_forgotten(wide):
    [known] = wide.runner.app[connections.CONNECTIONS]
    async with connected(wide) as (_, writer):
        writer.write(large("binary")[:400_000])
        await writer.drain()
        await until(lambda: known._open)
    await until(lambda: not known._open)
    async with connected(wide) as (reader, writer):
        writer.write(message())
        assert numbers((await answer(reader))[1]) == [2, 4, 6]


async def test_a_body_in_chunks_is_aiohttps(fast):
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    head = message(None, "/v2/models/double/infer", "POST", "1.1", "Transfer-Encoding: chunked")
    async with connected(fast) as (reader, writer):
        for _ in range(2):
            writer.write(head + chunks)
            status, body = await answer(reader)
            assert (status, numbers(body)) == (200, [2, 4, 6])


async def test_a_client_that_waits_to_be_told_to_go_on_is_told(fast):
    whole = message(BODY, "/v2/models/double/infer", "POST", "1.1", "Expect: 100-continue")
    async with connected(fast) as (reader, writer):
        writer.write(whole[: -len(BODY)])
        assert (await answer(reader))[0] == 100
        writer.write(BODY)
        assert numbers((await answer(reader))[1]) == [2, 4, 6]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_connection_that_is_to_be_closed_is_closed(fast, version):
    async with connected(fast) as (reader, writer):
        writer.write(message(BODY, "/v2/models/double/infer", "POST", version, "Connection: close"))
        assert numbers((await answer(reader))[1]) == [2, 4, 6]
        assert await reader.read() == b""


@pytest.mark.parametrize(
    "rubbish",
    [
        b"rubbish\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\0" * 40,
        message(BODY, "/v2/models/double/infer", "POST", "1.1", "Content-Length: 3"),
        b"POST /v2/models/double/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nabcde",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_400_and_the_server_goes_on(fast, rubbish):
    async with connected(fast) as (reader, writer):
        writer.write(rubbish)
        assert b" 400 " in await reader.read()
    assert (await fast.ask("GET", "v2/health/live")).status == 200


async def test_a_caller_that_goes_is_not_answered_and_its_request_does_not_run(fast):
    slow = fast.inferencers["slow"] = fast.inferencers["double"].__class__(
        [("x", "FP32", (-1, 3))], [("y", "FP32", (-1, 3))], lambda x: {"y": x}
    )
    version = fast.add("slow", slow, costs={1: 1.0}, options={"concurrency": 1})
    slow.gate.clear()
    request = message(path="/v2/models/slow/infer")
    async with connected(fast) as (reader, writer):
        writer.write(request)
        await asyncio.to_thread(slow.begun.acquire)
        async with connected(fast) as (_, leaving):
            leaving.write(request)
            await until(lambda: version.lane.waiting == 1)
        await until(lambda: not version.lane.waiting)
        slow.gate.set()
        assert numbers((await answer(reader))[1]) == [1, 2, 3]
    assert slow.rows == [1]
    assert version.in_flight == 0
    assert version.lane.observed.cancelled == 1


async def test_large_bodies_go_through_aiohttp(start):
    server = await start("fast", body_limit=64 << 20)
    rows = 1_500_000
    content = {"name": "x", "datatype": "FP32", "shape": [rows, 3], "parameters": {"binary_data_size": 12 * rows}}
    head = json.dumps({"inputs": [content], "outputs": [{"name": "total", "parameters": {"binary_data": True}}]})
    field = f"Inference-Header-Content-Length: {len(head)}"
    whole = message(head.encode() + b"\0" * 12 * rows, "/v2/models/double/infer", "POST", "1.1", field)
    async with connected(server) as (reader, writer):
        for _ in range(2):
            writer.write(whole)
            await writer.drain()
            status, body = await answer(reader)
            assert status == 200
            assert body.endswith(b"\0" * 4 * rows)


@pytest.mark.parametrize(
    "begin",
    [
        b"POST /v2/models/double/infer HTTP/1.1\r\nX-A: ",
        b"POST /v2 HTTP/1.1\r\nContent-Length: 9000\r\n\r\n",
        b"POST /v2/models/double/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n",
    ],
)
async def test_a_message_that_trickles_without_end_is_given_up(start, monkeypatch, begin):
    monkeypatch.setattr(connections, "KEEP_ALIVE", 0.05)
    monkeypatch.setattr(connections, "WHOLE", 0.2)
    server = await start("fast")
    async with connected(server) as (reader, writer):
        writer.write(begin)
        closing = asyncio.create_task(reader.read())
        while not closing.done():
            writer.write(b"a")
            await asyncio.sleep(0.01)
        assert await closing == b""
    async with connected(server) as (reader, writer):
        writer.write(GET)
        assert (await answer(reader))[0] == 200


async def test_a_stop_answers_what_is_in_work(start):
    server = await start("fast")
    slow = server.inferencers["double"]
    server.add("slow", slow, costs={1: 1.0})
    slow.gate.clear()
    site = next(iter(server.runner.sites))
    async with connected(server) as (reader, writer), connected(server) as (idle, _):
        writer.write(message(path="/v2/models/slow/infer"))
        await asyncio.to_thread(slow.begun.acquire)
        stopping = asyncio.create_task(site.stop())
        assert await idle.read() == b""
        slow.gate.set()
        assert numbers((await answer(reader))[1]) == [2, 4, 6]
        assert await reader.read() == b""
        await stopping


async def test_the_body_of_a_caller_without_a_token_is_not_awaited(start, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("run:secret\n")
    server = await start(access=Access(tokens=Tokens(tokens)))
    body = BODY + b" " * 500_000
    for path in ("/v2/models/double/infer", "/v2/repository/models/double/load"):
        async with connected(server) as (reader, writer):
            writer.write(message(body, path)[:1000])
            assert (await answer(reader))[0] == 401
    async with connected(server) as (reader, writer):
        whole = message(body, "/v2/models/double/infer", "POST", "1.1", "Authorization: Bearer secret")
        for part in (whole[:1000], whole[1000:], GET):
            writer.write(part)
            await writer.drain()
        status, content = await answer(reader)
        assert (status, numbers(content)) == (200, [2, 4, 6])
        assert await answer(reader) == (200, b'{"live":true}')
