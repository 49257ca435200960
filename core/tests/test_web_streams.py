from __future__ import annotations

import asyncio
import hashlib
import io
import json

import aiohttp
import pytest

from locex.schemas.record import JobEvent
from locex.web.app import create_app
from locex.web.auth import Access
from locex.web.routes import Routes
from locex.web.sse import STOPPING, last_event_id, stream_events
from locex.web.upload import CONSUMES, upload_chunks

LIMIT = 3 << 20

routes = Routes()
closed = asyncio.Event()


async def run_events(after, end):
    try:
        for number in range(after + 1, 4):
            yield JobEvent(id=number, run_id="r", time=1.0, kind="round", content={"loss": float("nan")})
        if end == "wait":
            await asyncio.Event().wait()
        if end == "break":
            raise RuntimeError("store lost")
    finally:
        closed.set()


@routes.get("/events/{end}", produces="text/event-stream")
async def events(request, end):
    return await stream_events(request, run_events(last_event_id(request), end), heartbeat=0.01)


@routes.put("/upload", consumes=CONSUMES, response=dict)
async def upload(request):
    digest, size = hashlib.sha256(), 0
    async for chunk in upload_chunks(request, limit=LIMIT):
        digest.update(chunk)
        size += len(chunk)
    return {"digest": digest.hexdigest(), "size": size}


@pytest.fixture
async def client(aiohttp_client):
    closed.clear()
    return await aiohttp_client(create_app([routes], title="Tiny", version="1", access=Access()))


async def test_events_are_streamed_to_their_end(client):
    response = await client.get("/events/end")
    assert response.content_type == "text/event-stream"
    blocks = [block for block in (await response.text()).split("\n\n") if not block.startswith(":")]
    assert blocks[0].startswith("retry: ")
    assert [block.split("\n")[:2] for block in blocks[1:4]] == [[f"id: {n}", "event: round"] for n in (1, 2, 3)]
    assert json.loads(blocks[1].split("\n")[2].removeprefix("data: ")) == {
        "id": 1,
        "run_id": "r",
        "time": 1.0,
        "kind": "round",
        "content": {"loss": None},
    }


async def test_a_stream_resumes_after_the_last_id(client):
    text = await (await client.get("/events/end", headers={"Last-Event-ID": "2"})).text()
    assert "id: 3\n" in text
    assert "id: 2\n" not in text


@pytest.mark.parametrize("identifier", ["x", "-1", "1" * 30, "²"])
async def test_an_id_that_is_none_is_refused(client, identifier):
    response = await client.get("/events/end", headers={"Last-Event-ID": identifier})
    assert (response.status, (await response.json())["code"]) == (422, "request-invalid")


async def test_a_silent_stream_has_a_heartbeat_and_ends_with_its_client(client):
    async with client.get("/events/wait", headers={"Last-Event-ID": "3"}) as response:
        await response.content.readuntil(b": still here\n\n")
    await closed.wait()


async def test_a_stream_ends_when_the_service_stops(client):
    async with client.get("/events/wait") as response:
        await response.content.readuntil(b": still here\n\n")
        client.app[STOPPING].set()
        assert (await response.text()).endswith("\n\n")
    await closed.wait()


async def test_a_stream_that_breaks_ends_and_is_logged(client, caplog):
    text = await (await client.get("/events/break")).text()
    assert "id: 3\n" in text
    assert "500" not in text
    assert "store lost" in caplog.text


async def test_a_stream_is_not_asked_for_by_head(client):
    assert (await client.head("/events/wait")).status == 405


BYTES = b"0123456789" * 200_000


def form(**fields):
    data = aiohttp.FormData()
    for name, content in fields.items():
        data.add_field(name, io.BytesIO(content), filename="model.zip")
    return data


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/zip", None])
async def test_raw_bytes_arrive(client, kind):
    headers = {"Content-Type": kind} if kind else {}
    response = await client.put("/upload/", data=io.BytesIO(BYTES), headers=headers)
    assert await response.json() == {"digest": hashlib.sha256(BYTES).hexdigest(), "size": len(BYTES)}


async def test_the_file_of_a_form_arrives(client):
    response = await client.put("/upload", data=form(other=b"x" * 200_000, file=BYTES))
    assert await response.json() == {"digest": hashlib.sha256(BYTES).hexdigest(), "size": len(BYTES)}


async def test_chunked_bytes_arrive(client):
    async def parts():
        for _ in range(4):
            yield BYTES[:1000]

    response = await client.put("/upload", data=parts())
    assert (await response.json())["size"] == 4000


async def test_a_file_of_just_the_limit_is_taken_and_one_more_byte_is_not(client):
    async def endless():
        while True:
            yield b"x" * 100_000

    assert (await client.put("/upload", data=io.BytesIO(b"x" * LIMIT))).status == 200
    assert (await client.put("/upload", data=form(file=b"x" * LIMIT))).status == 200
    for body in (io.BytesIO(b"x" * (LIMIT + 1)), form(file=b"x" * (LIMIT + 1))):
        response = await client.put("/upload", data=body)
        assert (response.status, (await response.json())["code"]) == (413, "too-large")


def part(name, content, *headers):
    lines = ["--b", f'Content-Disposition: form-data; name="{name}"', *headers, "", content, ""]
    return "\r\n".join(lines).encode()


FORM = "multipart/form-data; boundary=b"
MALFORMED = (400, "body-malformed")
UNSUPPORTED = (415, "media-type-unsupported")


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b"", "application/octet-stream", MALFORMED),
        (b"{}", "application/json", UNSUPPORTED),
        (b"nothing", "multipart/form-data", MALFORMED),
        (b"nothing", FORM, MALFORMED),
        (b"--b\r\nContent-Dis", FORM, MALFORMED),
        (part("other", "1") + b"--b--\r\n", FORM, MALFORMED),
        (part("file", "") + b"--b--\r\n", FORM, MALFORMED),
        (part("file", "cut off"), FORM, MALFORMED),
        (part("file", "cut off") + b"--b", FORM, MALFORMED),
        (part("file", "MQ==", "Content-Transfer-Encoding: base64") + b"--b--\r\n", FORM, UNSUPPORTED),
        (part("file", "MQ==", "Content-Encoding: gzip") + b"--b--\r\n", FORM, UNSUPPORTED),
    ],
)
async def test_bad_uploads_are_refused(client, body, kind, expected):
    response = await client.put("/upload", data=body, headers={"Content-Type": kind})
    assert (response.status, (await response.json()).get("code")) == expected


async def test_a_form_with_much_beside_its_file_is_refused(client):
    response = await client.put("/upload", data=form(other=b"x" * (LIMIT + (1 << 20)), file=b"x"))
    assert response.status == 413
