"""The connections of the fast way in: what they share, and their end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.typedefs import Handler

from locex.web.auth import ACCESS
from locex.web.metrics import METRICS
from locex_inference.http.fast import FastProtocol
from locex_inference.http.infer import Arrival, Reply
from locex_inference.http.keys import INFERENCE

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

KEEP_ALIVE = 75.0
"""Seconds after which a connection without a request is closed."""

WHOLE = 300.0
"""Seconds that a message may take to arrive, however steadily its bytes trickle."""

_PATH = "/v2/models/{model}/infer"
_VERSIONED = "/v2/models/{model}/versions/{version}/infer"
_DRAIN = 10.0
_POLL = 0.01


class Connections:
    """All connections of one listening socket."""

    def __init__(self, runner: web.AppRunner) -> None:
        """Take what the application holds; its server makes aiohttp's side of a connection."""
        app = runner.app
        assert runner.server is not None
        self.loop = asyncio.get_running_loop()
        self.server = runner.server
        self.inference = app[INFERENCE]
        self.access = app[ACCESS]
        self.lent: dict[web.RequestHandler, FastProtocol] = {}
        self.stopping = False
        self._open: set[FastProtocol] = set()
        self._metrics = app[METRICS]
        self._counters: dict[tuple[bool, int], Counter] = {}
        self._durations: dict[bool, Histogram] = {
            versioned: self._metrics.duration.labels("POST", _VERSIONED if versioned else _PATH)
            for versioned in (False, True)
        }
        self._date = b""
        self._until = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep()

    def add(self, connection: FastProtocol) -> None:
        """Know a connection."""
        self._open.add(connection)

    def remove(self, connection: FastProtocol) -> None:
        """Forget a connection."""
        self._open.discard(connection)

    def count(self, arrival: Arrival, status: int) -> None:
        """Count a reply as aiohttp's are counted."""
        versioned = bool(arrival.version)
        counter = self._counters.get((versioned, status))
        if counter is None:
            path = _VERSIONED if versioned else _PATH
            counter = self._counters[versioned, status] = self._metrics.requests.labels("POST", path, status)
        counter.inc()
        self._durations[versioned].observe(time.perf_counter() - arrival.began)

    def head(self, reply: Reply, size: int) -> bytes:
        """Return the head of a reply."""
        now = self.loop.time()
        if now >= self._until:
            self._date = formatdate(usegmt=True).encode()
            self._until = now + 1
        fields = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        return b"HTTP/1.1 %d %b\r\n%bContent-Length: %d\r\nDate: %b\r\n%b\r\n" % (
            reply.status,
            _PHRASES[reply.status],
            fields.encode("latin-1"),
            size,
            self._date,
            _FIXED,
        )

    async def drain(self) -> None:
        """Close every connection, those in work when they are answered."""
        self.stopping = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in tuple(self._open):
            connection.close()
        end = self.loop.time() + _DRAIN
        while any(not each.idle for each in self._open) and self.loop.time() < end:  # noqa: ASYNC110 -- once in a life
            await asyncio.sleep(_POLL)
        for connection in tuple(self._open):
            connection.close()

    def _sweep(self) -> None:
        """Close connections on which nothing came since the last sweep, or a message takes too long to be whole."""
        late = self.loop.time() - WHOLE
        for connection in tuple(self._open):
            if connection.idle and (not connection.active or connection.awaits_since(late)):
                connection.close()
            connection.active = False
        self._sweeper = self.loop.call_later(KEEP_ALIVE, self._sweep)


_FIXED = b"X-Content-Type-Options: nosniff\r\nServer: locex\r\n"
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}

CONNECTIONS: web.AppKey[list[Connections]] = web.AppKey("connections", list)


class FastSite(web.BaseSite):
    """Listens with the fast protocol in front of aiohttp's."""

    def __init__(self, runner: web.AppRunner, sock: socket.socket, *, ssl_context: ssl.SSLContext | None) -> None:
        super().__init__(runner, ssl_context=ssl_context)
        self._app_runner = runner
        self._socket = sock
        self._connections: Connections | None = None

    @property
    def name(self) -> str:
        """The address, as aiohttp names its sites."""
        host, port = self._socket.getsockname()[:2]
        return f"{'https' if self._ssl_context else 'http'}://{host}:{port}"

    async def start(self) -> None:
        """Listen."""
        await super().start()
        connections = self._connections = Connections(self._app_runner)
        self._app_runner.app[CONNECTIONS].append(connections)
        self._server = await connections.loop.create_server(
            partial(FastProtocol, connections),
            sock=self._socket,
            ssl=self._ssl_context,
            backlog=1024,
        )

    async def stop(self) -> None:
        """Listen no longer, and answer what is in work."""
        if self._server is not None:
            self._server.close()
        if self._connections is not None:
            await self._connections.drain()
        await super().stop()


@web.middleware
async def give_back(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the fast protocol when aiohttp has written its answer on a connection that was lent to it."""
    for connections in request.app[CONNECTIONS]:
        lender = connections.lent.get(request.protocol)
        task: asyncio.Task[Any] | None = asyncio.current_task()
        if lender is not None and task is not None:
            task.add_done_callback(lender.released)
    return await handler(request)
