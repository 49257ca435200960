from __future__ import annotations

import gzip
import io
import json
import logging
import math

import pytest
from aiohttp import web
from pydantic import BaseModel, Field

from locex.errors import LocexError, QueueFull, StoreUnavailable, UnknownJob, UnknownModel
from locex.schemas.base import Configuration
from locex.web.app import create_app
from locex.web.auth import Access
from locex.web.problems import STATUS
from locex.web.routes import Routes


class Filter(Configuration):
    state: list[str] = Field(default_factory=list)
    limit: int = Field(default=100, ge=1, le=1000)


class Thing(Configuration):
    count: int
    ratio: float = 1.0
    tags: list[str] = Field(default_factory=list)


class Answer(BaseModel):
    value: float | None = Field(alias="the-value")


routes = Routes()


@routes.get("/things", query=Filter, response=dict)
async def list_things(request, query):
    return {"state": query.state, "limit": query.limit}


@routes.post("/things/", body=Thing, response=Thing, status=201)
async def add_thing(request, body):
    return body


@routes.post("/raw/{name}", body=dict, response=dict)
async def raw(request, name, body):
    return {"name": name, "body": body}


@routes.get("/number", response=int)
async def number(request):
    return 3


@routes.get("/answer", response=Answer)
async def answer(request):
    return Answer(**{"the-value": math.nan})


@routes.delete("/thing/{number}", parameters={"number": int})
async def delete_thing(request, number):
    assert isinstance(number, int)


@routes.get("/text", produces="text/plain")
async def text(request):
    return web.Response(text="as it is")


FAILURES = {
    "job": lambda: UnknownJob("7"),
    "queue": lambda: QueueFull(4, retry_after=2.5),
    "store": lambda: StoreUnavailable("full", remedy="free it"),
    "bug": lambda: RuntimeError("secret detail"),
    "model": lambda: UnknownModel("m", "1", "the store"),
    "strange": lambda: LocexError("odd", code="third-party-code"),
}


@routes.get("/fail/{how}", response=dict)
async def fail(request, how):
    error = FAILURES[how]()
    raise error


@routes.get("/naming/{how}", response=dict, statuses={"model-unknown": 422})
async def naming(request, how):
    error = FAILURES[how]()
    raise error


@pytest.fixture
async def client(aiohttp_client):
    return await aiohttp_client(create_app([routes], title="Tiny", version="1", access=Access()))


async def assert_problem(response, status, code):
    content = await response.json()
    assert (response.status, content["code"]) == (status, code), content
    assert response.content_type == "application/problem+json"
    assert content["status"] == status
    assert content["type"] == f"urn:locex:problem:{code}"
    assert content["title"]
    assert content["detail"]
    assert content["instance"]
    return content


@pytest.mark.parametrize("path", ["/number", "/number/"])
async def test_a_path_works_with_and_without_slash(client, path):
    response = await client.get(path)
    assert (response.status, await response.text()) == (200, "3")
    assert response.content_type == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in response.headers["Server"]


@pytest.mark.parametrize("path", ["/things", "/things/"])
async def test_a_body_is_validated_and_an_answer_written(client, path):
    response = await client.post(path, json={"count": "5", "tags": "one", "ratio": None})
    assert response.status == 201
    assert await response.json() == {"count": 5, "ratio": 1.0, "tags": ["one"]}


async def test_json_without_a_content_type_is_taken(client):
    response = await client.post("/things/", data=b'{"count": 1}', headers={"Content-Type": "text/json"})
    assert response.status == 201
    response = await client.post("/things/", data=b'{"count": 1}', skip_auto_headers=["Content-Type"])
    assert response.status == 201


async def test_answers_use_aliases_and_null_for_nan(client):
    assert await (await client.get("/answer")).text() == '{"the-value":null}'


async def test_streams_and_empty_answers_pass(client):
    assert await (await client.get("/text")).text() == "as it is"
    response = await client.delete("/thing/7")
    assert (response.status, await response.read()) == (204, b"")


async def test_answers_can_be_asked_for_by_head(client):
    response = await client.head("/number")
    assert (response.status, response.headers["Content-Length"]) == (200, "1")


async def test_a_query_is_validated(client):
    response = await client.get("/things?state=A&state=B&limit=7")
    assert await response.json() == {"state": ["A", "B"], "limit": 7}
    assert (await (await client.get("/things?state=A")).json())["state"] == ["A"]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1&limit=2", "strange=1"])
async def test_a_bad_query_is_refused_by_name(client, query):
    content = await assert_problem(await client.get(f"/things?{query}"), 422, "request-invalid")
    assert content["errors"][0]["path"] == "/" + query.split("=")[0]


@pytest.mark.parametrize("name", ["a%2Fb", "..%2F", "%20", "-a", "a" * 200, "a%00"])
async def test_a_bad_name_in_a_path_is_refused(client, name):
    content = await assert_problem(await client.post(f"/raw/{name}", json={}), 422, "request-invalid")
    assert content["errors"][0]["path"] == "/name"


async def test_path_parameters_have_types(client):
    await assert_problem(await client.delete("/thing/x"), 422, "request-invalid")


async def test_a_bad_body_is_refused_by_field(client):
    response = await client.post("/things/", json={"count": "many", "tags": [1], "typo": 1})
    content = await assert_problem(response, 422, "configuration-invalid")
    assert {fault["path"] for fault in content["errors"]} == {"/count", "/tags/0", "/typo"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1] 2",
        b"\xff\xfe",
        '{"count": 1}'.encode("utf-16"),
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"1" * 5000 + b"}",
        b'{"a": 1, "a": 2}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a":' * 70 + b"1" + b"}" * 70,
        b"[" * 200_000,
        b"[]",
        b"null",
    ],
    ids=lambda body: repr(body[:16]),
)
async def test_what_is_not_a_json_object_is_malformed(client, body):
    response = await client.post("/raw/a", data=body, headers={"Content-Type": "application/json"})
    content = await assert_problem(response, 400, "body-malformed")
    assert content["remedy"]


async def test_deep_but_bounded_json_is_taken(client):
    body = b'{"a":' * 60 + b"1" + b"}" * 60
    response = await client.post("/raw/a", data=body, headers={"Content-Type": "application/json"})
    assert (await response.json())["body"] == json.loads(body)


async def test_a_body_of_another_type_is_refused(client):
    response = await client.post("/things/", data=b"count=1", headers={"Content-Type": "text/plain"})
    await assert_problem(response, 415, "media-type-unsupported")


async def test_a_compressed_body_is_refused(client):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = await client.post("/things/", data=gzip.compress(b'{"count": 1}'), headers=headers)
    await assert_problem(response, 415, "media-type-unsupported")


async def test_a_body_over_the_limit_is_refused(client):
    body = io.BytesIO(b'{"a": "' + b"x" * (1 << 20) + b'"}')
    response = await client.post("/raw/a", data=body, headers={"Content-Type": "application/json"})
    await assert_problem(response, 413, "too-large")


async def test_unknown_paths_and_methods_are_problems(client):
    await assert_problem(await client.get("/nowhere"), 404, "not-found")
    response = await client.put("/number")
    await assert_problem(response, 405, "method-not-allowed")
    assert "GET" in response.headers["Allow"]


async def test_errors_carry_status_remedy_and_retry(client):
    content = await assert_problem(await client.get("/fail/job"), 404, "job-unknown")
    assert content["detail"] == UnknownJob("7").message
    assert content["remedy"] == UnknownJob("7").remedy
    assert content["instance"] == "/fail/job"
    response = await client.get("/fail/queue")
    await assert_problem(response, 429, "queue-full")
    assert response.headers["Retry-After"] == "3"
    response = await client.get("/fail/store")
    await assert_problem(response, 503, "store-unavailable")
    assert int(response.headers["Retry-After"]) > 0


async def test_a_route_may_give_an_error_another_status(client):
    await assert_problem(await client.get("/fail/model"), 404, "model-unknown")
    content = await assert_problem(await client.get("/naming/model"), 422, "model-unknown")
    assert content["errors"][0]["path"] == "/model_name"


async def test_an_unknown_code_is_kept(client):
    await assert_problem(await client.get("/fail/strange"), 500, "third-party-code")


async def test_a_bug_is_logged_and_not_told(client, caplog):
    with caplog.at_level(logging.ERROR, logger="locex.web"):
        response = await client.get("/fail/bug")
    content = await assert_problem(response, 500, "internal")
    assert "secret" not in await response.text()
    assert content["instance"].removeprefix("urn:uuid:") in caplog.text
    assert "secret detail" in caplog.text


def test_every_error_has_a_status():
    pending, codes = [LocexError], set()
    while pending:
        error = pending.pop()
        codes.add(error.code)
        pending += [subclass for subclass in error.__subclasses__() if subclass.__module__.startswith("locex.")]
    assert codes <= set(STATUS)
