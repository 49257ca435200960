"""Runs the inference service beside the node: started once the node listens, again when it ends, and ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator

from aiohttp import web
from prometheus_client import Gauge

from locex.cli.shell import GROUP
from locex.errors import InvalidConfiguration
from locex.processes.child import Child, python
from locex.settings import NodeSettings, worker_environment
from locex.web.metrics import METRICS
from locex_server.inference.settings import BesideSettings

log = logging.getLogger(__name__)
_FIRST, _LONGEST = 1.0, 60.0  # seconds before it is started again
_SETTLED = 60.0  # seconds after which an end is no failure of the start
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- what is compared, not where anything listens
_WITHHELD = ("LOCEX_STORE", "LOCEX_STORE_URL", "LOCEX_STORE_URL_FILE", "DATABASE_NAME", "REPOSITORY_ADDRESS")
_TLS = ("LOCEX_TLS_CERTIFICATE", "LOCEX_TLS_KEY", "LOCEX_TLS_CLIENT_CA")


class Inference:
    """The inference service of a node."""

    def __init__(self, settings: NodeSettings, beside: BesideSettings) -> None:
        """Raise `InvalidConfiguration` where it is not installed, or could not ask the node."""
        _require(settings)
        self._settings = settings
        self._beside = beside
        self._listening: asyncio.Future[str] | None = None
        self._child: Child | None = None

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._child is not None and self._child.exit_code is None

    def site(self, runner: web.AppRunner, sock: socket.socket, *, ssl_context: ssl.SSLContext | None) -> web.BaseSite:
        """Return the node's site, and take note of where it listens: with PORT 0 nobody knows before."""
        if self._listening is not None and not self._listening.done():
            host, port = sock.getsockname()[:2]
            host = _ANYWHERE.get(host, host)
            self._listening.set_result(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        return web.SockSite(runner, sock, ssl_context=ssl_context)

    async def lifetime(self, app: web.Application) -> AsyncIterator[None]:
        """Run for as long as the application does."""
        up = Gauge("locex_inference_up", "Whether the inference service runs.", registry=app[METRICS].registry)
        up.set_function(lambda: float(self.runs))
        self._listening = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(self._run(self._listening))
        yield
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    async def _run(self, listening: asyncio.Future[str]) -> None:
        node, pause = await listening, _FIRST
        folder = self._settings.state_folder / "inference"
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        argv = python("locex_server.inference.beside", "inference", "serve")
        while True:
            began = time.monotonic()
            self._child = child = await Child.start(argv, environment=self._environment(node))
            try:
                child.keep_log(folder / "inference.log")
                code = await child.exited()
            except asyncio.CancelledError:
                await child.end(self._settings.stop_grace)
                raise
            await child.wait()
            pause = _FIRST if time.monotonic() - began > _SETTLED else min(2 * pause, _LONGEST)
            log.warning("the inference service ended with %s, it starts again in %g s\n%s", code, pause, child.log)
            await asyncio.sleep(pause)

    def _environment(self, node: str) -> dict[str, str | None]:
        """Return what makes the service follow this node, with the same site and plugins, and the same tokens."""
        settings, beside = self._settings, self._beside
        tokens = settings.api_token_file
        own = beside.inference_configuration_folder
        return {
            **worker_environment(settings),
            **dict.fromkeys((*_WITHHELD, *_TLS)),
            "HOST": beside.inference_host,
            "PORT": str(beside.inference_port),
            "LOCEX_STATE_FOLDER": str(settings.state_folder / "inference"),
            "LOCEX_CONFIGURATION_FOLDER": str(own) if own is not None else None,
            "LOCEX_API_TOKEN_FILE": str(tokens) if tokens is not None else None,
            "LOCEX_FOLLOW": beside.follow,
            "LOCEX_NODE_ADDRESS": node,
            "LOCEX_NODE_TOKEN_FILE": str(tokens) if tokens is not None else None,
        }


def _require(settings: NodeSettings) -> None:
    if not importlib.metadata.entry_points(group=GROUP, name="inference"):
        raise InvalidConfiguration(
            "the inference service is not installed", remedy="pip install locex-inference, or leave --inference away"
        )
    if settings.tls_certificate is not None:
        raise InvalidConfiguration(
            "the inference service beside a node asks it without TLS",
            remedy="run `locex inference serve` by itself, with LOCEX_NODE_ADDRESS, LOCEX_NODE_CA and LOCEX_FOLLOW",
        )
