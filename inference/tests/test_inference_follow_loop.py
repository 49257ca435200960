"""From training to serving: versions that a service offers are fetched, checked and swapped in, or refused."""

from __future__ import annotations

import asyncio
import hashlib

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from onnx import TensorProto, helper, numpy_helper
from prometheus_client import CollectorRegistry

from locex_inference.following.errors import PeerFailed
from locex_inference.following.follower import Follower
from locex_inference.following.guard import Guard
from locex_inference.following.metrics import FollowMetrics
from locex_inference.following.peer import Peer
from locex_inference.following.serving import FollowedVersions
from locex_inference.following.settings import FollowSettings
from locex_inference.models.loading import Loader
from locex_inference.models.options import ModelOptions
from locex_inference.models.registry import Registry


def adding(value):
    """Return a model that adds a value to two numbers."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["input", "v"], ["output"])],
        "adding",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.full(1, value, np.float32), "v")],
    )
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


class Node:
    """A service that offers what a test says, and fails as it says."""

    def __init__(self):
        self.models, self.files, self.asked = {}, {}, []
        self.fault = None
        app = web.Application()
        app.router.add_get("/model/", self._list)
        app.router.add_get("/model/{name}/{version}/files/{file}", self._file)
        self.server = TestServer(app)

    @property
    def url(self):
        return str(self.server.make_url("")).rstrip("/")

    def offer(self, version, content, *, name="m", digest=None):
        self.files[version] = content
        self.models[version] = {
            "model_name": name,
            "model_version": version,
            "meta": {"library": "pytorch"},
            "digest": "0" * 64,
            "created": float(len(self.models) + 1),
            "updated": float(len(self.models) + 1),
            "lineage": {
                "run_id": version,
                "files": {"model.zip": "0" * 64, "model.onnx": digest or hashlib.sha256(content).hexdigest()},
            },
        }

    async def _list(self, _request):
        if self.fault:
            raise self.fault
        return web.json_response(list(self.models.values()))

    async def _file(self, request):
        self.asked.append(request.match_info["version"])
        return web.Response(body=self.files[request.match_info["version"]])


@pytest.fixture
async def node():
    node = Node()
    await node.server.start_server()
    yield node
    await node.server.close()


class Serving:
    """Models served in this process, and what follows for them."""

    def __init__(self, node, folder, **settings):
        self.registry = Registry()
        self.loader = Loader(self.registry)
        self.metrics = CollectorRegistry()
        chosen = FollowSettings(follow="*", node_address=node.url, **{"guard": "off", **settings})
        self.follower = Follower(
            chosen,
            FollowedVersions(self.loader, lambda _: ModelOptions(warmup=[1]), as_trained=False),
            Guard(chosen),
            folder=folder,
            max_bytes=10**6,
            metrics=FollowMetrics(self.metrics),
        )
        self.peer = Peer(node.url, token=None, ca=None, max_bytes=10**6)

    async def look(self):
        await self.follower.look(self.peer)
        (told,) = self.follower.status()
        return told

    def answer(self, version=""):
        """Return the version that answers, and what it answers to zeros."""
        chosen = self.registry.choose("m", version)
        made = chosen.inferencer.run({"input": np.zeros((1, 2), np.float32)}, ["output"])
        return chosen.version, float(made["output"][0, 0])


@pytest.fixture
async def serve(node, tmp_path):
    services = []

    async def served(**settings):
        service = Serving(node, tmp_path / "follow", **settings)
        services.append(service)
        await service.follower.start()
        return service

    yield served
    for service in services:
        await service.follower.close()
        await service.loader.close()


SLOWLY = {"follow_interval": 3600.0}  # the tests look themselves


async def test_new_versions_are_fetched_once_and_swapped_in(node, serve):
    node.offer("a", adding(1))
    service = await serve(**SLOWLY)
    assert (await service.look()).serving == "a"
    assert service.answer() == ("a", 1)
    node.offer("b", adding(2))
    told = await service.look()
    assert (told.serving, told.former, told.phase) == ("b", "a", "following")
    assert service.answer() == ("b", 2)
    assert service.answer("a") == ("a", 1)  # stays warm
    await service.look()
    assert node.asked.count("b") == 1
    assert 'locex_inference_followed_versions_total{model="m",verdict="accepted"} 2.0' in _text(service.metrics)


async def test_a_refused_version_is_told_and_never_tried_again(node, serve):
    node.offer("a", adding(1))
    service = await serve(**SLOWLY)
    await service.look()
    node.offer("b", b"this is no model")
    told = await service.look()
    assert told.serving == "a"
    assert [one.accepted for one in told.decisions] == [False, True]
    assert told.decisions[0].reason
    assert service.answer() == ("a", 1)
    states = {entry.version: (entry.state, entry.reason) for entry in service.registry.index()}
    assert states["b"] == ("UNAVAILABLE", told.decisions[0].reason)
    await service.look()
    assert node.asked.count("b") == 1
    node.offer("c", adding(3))
    assert (await service.look()).serving == "c"


async def test_lies_and_faults_of_the_service_leave_serving_alone(node, serve):
    node.offer("a", adding(1))
    service = await serve(**SLOWLY)
    await service.look()
    node.offer("b", adding(2), digest="ab" * 32)
    with pytest.raises(PeerFailed, match="was offered"):
        await service.look()
    (told,) = service.follower.status()
    assert told.serving == "a"
    assert "was offered" in told.error
    node.fault = web.HTTPInternalServerError()
    with pytest.raises(PeerFailed, match="answers 500"):
        await service.look()
    assert service.answer() == ("a", 1)
    node.fault = None
    node.offer("b", adding(2))
    told = await service.look()
    assert (told.serving, told.error) == ("b", None)


async def test_a_lie_about_one_model_does_not_hold_up_another(node, serve):
    node.offer("a", adding(1), digest="ab" * 32)
    node.offer("b", adding(2), name="other")
    service = await serve(**SLOWLY)
    with pytest.raises(PeerFailed):
        await service.look()
    told = {one.model: (one.serving, one.error is None) for one in service.follower.status()}
    assert told == {"m": (None, False), "other": ("b", True)}


async def test_the_file_of_a_version_stays_while_it_is_loaded(node, serve, tmp_path):
    service = await serve(**SLOWLY)
    for number, version in enumerate("abcde"):
        node.offer(version, adding(number))
        await service.look()
        if version == "a":
            service.registry.set_labels("m", {"mine": "a"})
    kept = {path.name for path in (tmp_path / "follow" / "m").iterdir() if path.is_dir()}
    loaded = {version.version: version.digest for version in service.registry.versions("m")}
    assert set(loaded) == {"a", "d", "e"}
    assert set(loaded.values()) <= kept
    assert hashlib.sha256(adding(1)).hexdigest() not in kept  # of b


async def test_a_service_that_starts_serves_what_it_served_before_while_the_node_is_down(node, serve):
    node.offer("a", adding(1))
    first = await serve(**SLOWLY)
    await first.look()
    node.offer("b", adding(2))
    await first.look()
    node.fault = web.HTTPServiceUnavailable()
    second = await serve(**SLOWLY)
    assert second.answer() == ("b", 2)
    assert second.registry.rollback("m").version == "a"


async def test_a_rollback_and_a_refusal_outlive_a_restart(node, serve):
    node.offer("a", adding(1))
    first = await serve(**SLOWLY)
    await first.look()
    node.offer("b", adding(2))
    await first.look()
    first.registry.rollback("m")
    told = await first.look()
    assert (told.serving, told.former) == ("a", "b")
    second = await serve(**SLOWLY)
    assert second.answer() == ("a", 1)
    assert (await second.look()).serving == "a"  # the newest is the one that was left
    assert second.answer() == ("a", 1)


async def test_versions_older_than_the_served_one_are_not_taken_up(node, serve):
    node.offer("a", adding(1))
    node.offer("b", adding(2))
    service = await serve(**SLOWLY)
    assert (await service.look()).serving == "b"
    del node.models["b"]
    assert (await service.look()).serving == "b"
    assert "a" not in node.asked


async def test_following_goes_on_by_itself_and_outlives_failures(node, serve):
    node.fault = web.HTTPBadGateway()
    service = await serve(follow_interval=0.01, follow_backoff=0.02)
    node.offer("a", adding(1))
    node.fault = None
    async with asyncio.timeout(60):
        while not service.follower.status() or service.follower.status()[0].serving != "a":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert service.answer() == ("a", 1)


async def test_the_guard_is_asked_before_a_version_serves(node, serve, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    x = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
    for name in ("train", "test"):
        np.save(folder / f"x_{name}.npy", x)
        np.save(folder / f"y_{name}.npy", x + 1)
    monkeypatch.setenv("DATA_FOLDER", str(folder))
    node.offer("right", adding(1))
    service = await serve(guard="required", **SLOWLY)
    assert (await service.look()).serving == "right"
    node.offer("wrong", adding(5))
    told = await service.look()
    assert told.serving == "right"
    assert "worse than the served version's" in told.decisions[0].reason
    assert told.decisions[1].scores["candidate"] == {"measure": "mean squared error", "value": 0.0}
    assert service.answer() == ("right", 1)


def _text(registry):
    from prometheus_client import generate_latest

    return generate_latest(registry).decode()


async def test_a_model_that_cannot_be_kept_does_not_keep_others_from_being_served(node, serve, tmp_path):
    service = await serve(**SLOWLY)
    (tmp_path / "follow").mkdir(exist_ok=True)
    (tmp_path / "follow" / "first").write_bytes(b"in the way")
    node.offer("1", adding(1), name="first")
    node.offer("2", adding(2))
    with pytest.raises(PeerFailed, match="first could not be taken up"):
        await service.follower.look(service.peer)
    assert service.answer() == ("2", 2)
