"""Models from the FL Repository, honest and hostile."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

WEIGHTS = b'{"features": 4, "classes": 3}'
MIB = bytes(2**20)


class Repository:
    """An FL Repository; the model's name chooses how it behaves."""

    def __init__(self):
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    async def metadata(self, request):
        name, version = request.query["model_name"], request.query["model_version"]
        if name == "unknown":
            raise web.HTTPNotFound
        if name == "failing":
            raise web.HTTPInternalServerError
        if name == "slow":
            await asyncio.sleep(60)
        if name == "garbage":
            return web.Response(body=b"\x00<html>")
        if name == "other":
            name = "m"
        described = {"model_name": name, "model_version": version, "meta": {"library": "tiny", "notes": "x" * 5000}}
        response = web.StreamResponse()
        await response.prepare(request)
        text = web.json_response(described).body
        for at in (0, 100):  # arrives in parts
            await response.write(text[at:] if at else text[:100])
            await asyncio.sleep(0.05)
        return response

    async def content(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        self.asked.set()
        try:
            match request.match_info["name"]:
                case "endless":
                    while True:
                        await response.write(MIB)
                case "trickling":
                    while True:
                        await response.write(b"x")
                        await asyncio.sleep(0.1)
                case "missing":
                    raise web.HTTPNotFound
                case _:
                    await response.write(WEIGHTS)
        finally:
            self.left.set()
        return response


@pytest.fixture
async def repository():
    repository = Repository()
    app = web.Application()
    app.router.add_get("/model/meta", repository.metadata)
    app.router.add_get("/model/{name}/{version}", repository.content)
    async with TestServer(app) as server:
        repository.address = f"{server.host}:{server.port}"
        yield repository


@pytest.fixture
async def node(open_node, repository):
    return await open_node(repository_address=repository.address, max_model_mb=1)


async def test_a_model_that_the_node_lacks_comes_from_the_repository_and_stays(node):
    await node.submit("t", model_name="cnn")
    record = await node.end()
    assert record["state"] == "FINISHED", record["failure"]
    assert await node.call("GET", "/model/cnn/1") == WEIGHTS
    query = {"model_name": "cnn", "model_version": "1"}
    assert (await node.call("GET", "/model/meta", params=query))["meta"]["notes"] == "x" * 5000


async def test_a_repository_that_cannot_be_used_is_told_apart_from_an_unknown_model(node, repository, open_node):
    unknown = await node.submit("t", 422, model_name="unknown")
    assert unknown["code"] == "model-unknown"
    assert repository.address in unknown["detail"]

    async def unavailable(name):
        problem = await node.submit(name, 503, model_name=name)
        assert problem["code"] == "repository-unavailable"
        assert repository.address in problem["detail"]
        assert "REPOSITORY_ADDRESS" in problem["remedy"]

    await asyncio.gather(*map(unavailable, ("failing", "slow", "garbage", "other")))
    assert (await node.call("GET", "/jobs"))["total"] == 0


async def test_a_repository_that_is_down_says_when_to_try_again(open_node, unused_tcp_port):
    node = await open_node(repository_address=f"http://127.0.0.1:{unused_tcp_port}/")
    async with node.http.post(
        "/job/config/t", json={"server_address": "a", "model_name": "m", "model_version": "1"}
    ) as it:
        assert it.status == 503
        assert int(it.headers["Retry-After"]) > 0


async def test_a_body_without_end_fails_the_job_at_the_bound(node, repository):
    await node.submit("t", model_name="endless")
    record = await node.end()
    assert record["state"] == "FAILED"
    assert record["failure"]["code"] == "too-large"
    await asyncio.wait_for(repository.left.wait(), 30)
    await node.call("GET", "/model/endless/1", 404)


async def test_a_job_whose_model_never_arrives_can_be_stopped(node, repository):
    await node.submit("t", model_name="trickling")
    await asyncio.wait_for(repository.asked.wait(), 30)
    assert (await node.call("DELETE", "/job/t"))["state"] == "STOPPED"
    await asyncio.wait_for(repository.left.wait(), 30)
