"""``locex serve --inference``: the inference service beside the node lives, and ends, with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal

import aiohttp
import psutil
import pytest

SOON = 120  # seconds


async def until(condition):
    """Return the first true value of a condition that is awaited."""
    async with asyncio.timeout(SOON):
        while True:
            with contextlib.suppress(aiohttp.ClientError, psutil.Error):
                if value := await condition():
                    return value
            await asyncio.sleep(0.05)


class Beside:
    """The inference service beside a node, over HTTP."""

    def __init__(self, service, port, token):
        self.service, self.url = service, f"http://127.0.0.1:{port}"
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def get(self, path):
        async with aiohttp.ClientSession(headers=self.headers) as session, session.get(f"{self.url}{path}") as response:
            content = await response.read()
            return response.status, json.loads(content) if content else None

    async def live(self):
        return (await self.get("/v2/health/live"))[0] == 200

    def processes(self):
        return [one for one in self.service.family() if "locex_server.inference.beside" in one.cmdline()]


@pytest.fixture
def beside(launch, unused_tcp_port, tmp_path):
    """Start a node with inference beside it."""

    async def started(*, token=None):
        environment = {"LOCEX_INFERENCE": "1", "LOCEX_INFERENCE_PORT": str(unused_tcp_port), "LOCEX_GRPC_PORT": "0"}
        if token:
            tokens = tmp_path / "tokens"
            tokens.write_text(f"admin:{token}\n")
            tokens.chmod(0o600)
            environment["LOCEX_API_TOKEN_FILE"] = str(tokens)
        service = await launch(token=token, LOCEX_FOLLOW_INTERVAL="0.1", **environment)
        made = Beside(service, unused_tcp_port, token)
        await until(made.live)
        return made

    return started


async def test_it_follows_the_node_and_asks_it_with_its_token(beside):
    made = await beside(token="secret")
    assert (await made.get("/follow")) == (200, [])
    await made.service.node.put_model()
    await made.service.node.submit()
    assert (await made.service.node.end())["state"] == "FINISHED"

    async def told():
        status, models = await made.get("/follow")
        return status == 200 and models and models[0]["decisions"] and models[0]

    model = await until(told)
    assert (model["model"], model["serving"]) == ("m", None)
    assert "safetensors" in model["decisions"][0]["reason"]  # weights alone are no model to serve
    status, index = await made.get("/v2/models/m/ready")
    assert status in {404, 503}
    assert index["error"]
    made.headers = {}
    assert (await made.get("/follow"))[0] == 401


async def test_it_is_started_again_and_ends_with_the_node(beside):
    made = await beside()
    (first,) = made.processes()
    first.kill()

    async def another():
        return [one for one in made.processes() if one.pid != first.pid] and await made.live()

    await until(another)
    family = made.service.family()
    code, stderr = await made.service.end(signal.SIGTERM)
    assert code == 0, stderr
    assert "starts again in" in stderr

    async def gone():
        return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)

    await until(gone)


async def test_it_ends_when_the_node_is_killed(beside):
    made = await beside()
    (process,) = made.processes()
    await made.service.end(signal.SIGKILL)
    await asyncio.to_thread(psutil.wait_procs, [process], SOON)
    assert not process.is_running()


async def test_a_node_with_tls_does_not_start_it(locex, tmp_path):
    for name in ("cert", "key"):
        (tmp_path / name).touch()
    tls = {"LOCEX_TLS_CERTIFICATE": str(tmp_path / "cert"), "LOCEX_TLS_KEY": str(tmp_path / "key")}
    code, _, stderr = await locex("serve", "--port", 0, "--inference", **tls)
    assert code == 1
    assert "without TLS" in stderr
    assert "locex inference serve" in stderr
