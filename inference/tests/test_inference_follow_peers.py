"""What a node or repository may answer, and what a follower makes of it."""

from __future__ import annotations

import hashlib

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from locex.errors import InvalidConfiguration
from locex_inference.following.errors import PeerFailed
from locex_inference.following.offers import listed_in, newest
from locex_inference.following.peer import Peer, token_of
from locex_inference.following.settings import Followed, FollowSettings

BYTES = b"weights" * 1000
DIGEST = hashlib.sha256(BYTES).hexdigest()


def model(name="m", version="1", **changes):
    return {"model_name": name, "model_version": version, "meta": {"library": "pytorch"}, **changes}


def stored(version, updated, *, run="r", digest=DIGEST, **lineage):
    told = {"run_id": run, "training_id": "t", **lineage} if run else {}
    return model(version=version, digest=digest, updated=updated, created=updated, lineage=told)


def offered(*models, uploads=False):
    return newest(listed_in(list(models)), uploads=uploads)


def test_of_a_node_the_newest_trained_version_is_followed():
    offers = offered(stored("2", 20), stored("1", 10), stored("3", 30, run=None), stored("4", 40, digest=None))
    assert offers["m"].version == "2"
    assert offered(stored("2", 20), stored("3", 30, run=None), uploads=True)["m"].version == "3"
    assert offered(stored("3", 30, run=None)) == {}


def test_a_repository_that_tells_no_times_offers_the_last_of_its_list():
    offers = offered(model(version="1"), model(version="2"), model("other", "7"))
    assert {name: (offer.version, offer.digest, offer.path) for name, offer in offers.items()} == {
        "m": ("2", "", "/model/m/2"),
        "other": ("7", "", "/model/other/7"),
    }


def test_an_export_in_onnx_goes_before_the_artefact():
    (offer,) = offered(stored("1", 1, files={"model.zip": DIGEST, "model.onnx": "ab" * 32})).values()
    assert (offer.path, offer.digest) == ("/model/m/1/files/model.onnx", "ab" * 32)
    (plain,) = offered(stored("1", 1, files={"model.zip": DIGEST})).values()
    assert (plain.path, plain.digest) == ("/model/m/1", DIGEST)


@pytest.mark.parametrize("name", ["/tmp/evil.onnx", "../../evil.onnx", "a/b.onnx", "..onnx", "a\n.onnx", ".onnx"])
def test_a_file_whose_name_leads_out_of_its_folder_is_not_taken(name):
    (offer,) = offered(stored("1", 1, files={name: DIGEST, "model.zip": DIGEST})).values()
    assert (offer.file, offer.path) == ("", "/model/m/1")


def test_entries_that_are_no_models_are_left_out():
    assert offered({"model_name": "../x"}, 7, None, model(version="1"))["m"].version == "1"
    endless = model(version="2", digest=DIGEST, updated=float("inf"), created=float("inf"))
    assert offered(endless, stored("1", 10))["m"].version == "1"
    with pytest.raises(ValueError, match="no list"):
        listed_in({"detail": "no"})


@pytest.fixture
async def peer_of():
    """Make a peer of a server that answers as a handler says."""
    servers = []

    async def made(handler, *, max_bytes=10**6, token=None):
        app = web.Application()
        app.router.add_get("/{path:.*}", handler)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return Peer(str(server.make_url("")).rstrip("/"), token=token, ca=None, max_bytes=max_bytes)

    yield made
    for server in servers:
        await server.close()


def offer():
    return offered(stored("1", 1))["m"]


async def test_a_download_is_held_against_the_offered_digest(peer_of, tmp_path):
    async def honest(request):
        assert request.headers["Authorization"] == "Bearer secret"
        return web.Response(body=BYTES)

    assert await (await peer_of(honest, token="secret")).download(offer(), tmp_path / "file") == DIGEST
    assert (tmp_path / "file").read_bytes() == BYTES

    async def lying(_request):
        return web.Response(body=BYTES[:-1] + b"!")

    with pytest.raises(PeerFailed, match=f"{DIGEST} was offered"):
        await (await peer_of(lying)).download(offer(), tmp_path / "file")


async def test_a_download_that_is_too_large_breaks_off_or_leads_elsewhere_is_a_failure(peer_of, tmp_path):
    async def truncated(request):
        response = web.StreamResponse(headers={"Content-Length": str(len(BYTES))})
        await response.prepare(request)
        await response.write(BYTES[:100])
        request.transport.close()
        return response

    async def elsewhere(_request):
        raise web.HTTPFound("http://127.0.0.1:1/secret")

    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(bytes(2**16))
        return response

    for handler, message in (
        (truncated, "broke off"),
        (elsewhere, "answers 302"),
        (endless, "more than 1000000 bytes"),
    ):
        with pytest.raises(PeerFailed, match=message):
            await (await peer_of(handler)).download(offer(), tmp_path / "file")


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"text": "<html>"}, "no JSON"),
        ({"text": "[" * 100_000}, "no JSON"),
        ({"text": '{"models": []}'}, "no list of models"),
        ({"status": 500}, "answers 500"),
        ({"status": 401}, "answers 401"),
    ],
)
async def test_a_list_that_is_none_is_a_failure(peer_of, response, message):
    async def handler(_request):
        return web.Response(**response)

    with pytest.raises(PeerFailed, match=message):
        await (await peer_of(handler)).models()


async def test_a_service_that_is_down_is_a_failure(unused_tcp_port):
    peer = Peer(f"http://127.0.0.1:{unused_tcp_port}", token=None, ca=None, max_bytes=1)
    with pytest.raises(PeerFailed, match=str(unused_tcp_port)):
        await peer.models()
    assert await peer.configuration_of(offer()) is None


async def test_the_configuration_is_that_of_the_run_that_trained_the_version(peer_of):
    jobs = [{"run_id": run, "configuration": {"model_name": run}} for run in ("later", "r")]

    async def handler(request):
        assert request.query["training_id"] == "t"
        return web.json_response({"jobs": jobs, "total": 2})

    assert await (await peer_of(handler)).configuration_of(offer()) == {"model_name": "r"}


def test_settings_name_models_and_services():
    settings = FollowSettings(follow="cnn, mlp=http://other:9050/, *", node_address="node:9050")
    assert settings.followed() == [
        Followed("cnn", "http://node:9050"),
        Followed("mlp", "http://other:9050"),
        Followed("*", "http://node:9050"),
    ]
    assert FollowSettings(follow="cnn", repository_address="https://repo").followed()[0].url == "https://repo"
    with pytest.raises(InvalidConfiguration, match="there is no node"):
        FollowSettings(follow="cnn").followed()
    with pytest.raises(InvalidConfiguration, match=r"'\.\./x' is no model's name"):
        FollowSettings(follow="../x", node_address="node").followed()


def test_the_token_is_the_first_of_a_file_like_the_nodes(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("# mine\nread:abc:def\nadmin:x\n")
    assert token_of(path) == "abc:def"
    path.write_text("bare\n")
    assert token_of(path) == "bare"
    path.write_text("# nothing\n")
    with pytest.raises(InvalidConfiguration, match="holds no token"):
        token_of(path)
    assert token_of(None) is None
