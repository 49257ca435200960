"""The fast way in: a lean protocol for plain infer requests on a live HTTP/1.1 connection.

aiohttp answers everything else on the same connection: a message that is there as a whole is lent to it and the
connection comes back with the reply; one whose end cannot be told hands it the connection for good. What a request
means is not decided here but in `locex_inference.http.infer`, as for aiohttp's requests.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from aiohttp import hdrs, web

from locex.errors import LocexError
from locex.web.auth import admit
from locex.web.routes import Scope
from locex_inference.engine.ticket import Ticket
from locex_inference.http.heads import LARGEST, Head, read_head
from locex_inference.http.infer import Arrival, Reply
from locex_inference.http.large_body import LARGE, LargeBody

if TYPE_CHECKING:
    from locex_inference.http.connections import Connections

FAST_BODY = 16 << 20
"""Bytes: larger bodies are aiohttp's."""

_HELD = 1 << 18
"""Bytes that wait behind a request that is not answered yet, before the client is made to wait."""

_UNASKED = 1 << 16
"""Bytes of a body that are awaited before it is clear whether the caller may send it."""

_WRITE_WHOLE = 1 << 16
_BREAK = b"\r\n\r\n"


class FastProtocol(asyncio.Protocol):
    """One connection. It has at most one request in work; what comes after that is held."""

    def __init__(self, connections: Connections) -> None:
        self.active = True
        self._all = connections
        self._transport: asyncio.Transport | None = None
        self._remote = ""
        self._encrypted = False
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._paused = False
        self._blocked = False
        self._busy = False
        self._raw_head = b""
        self._head: Head | None = None
        self._arrival: Arrival | None = None
        self._ticket: Ticket | None = None
        self._guest: web.RequestHandler | None = None
        self._missing = 0
        self._awaited_since: float | None = None

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if peer else ""
        self._encrypted = transport.get_extra_info("sslcontext") is not None
        self._all.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """End: a request that does not run yet never will."""
        self._all.remove(self)
        self._transport = None
        if self._ticket is not None:
            self._ticket.cancel()
        if self._guest is not None:
            self._all.lent.pop(self._guest, None)
            self._guest.connection_lost(error)

    def pause_writing(self) -> None:
        """Take no further request from a client that does not read its replies."""
        self._blocked = True
        if self._guest is not None:
            self._guest.pause_writing()

    def resume_writing(self) -> None:
        """Go on."""
        self._blocked = False
        if self._guest is not None:
            self._guest.resume_writing()
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Take bytes: most often one whole request."""
        self.active = True
        if self._held or self._busy or self._blocked:
            self._hold(data)
            if self._busy or self._blocked or self._held_bytes < self._missing:
                return
            data = self._taken()
        self._read(data)

    # --- one message after the other ---

    @property
    def idle(self) -> bool:
        """Whether nothing is in work."""
        return not self._busy

    def close(self) -> None:
        """Close the connection when what is in work is answered."""
        if self._transport is not None and not self._busy:
            self._transport.close()

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes - self._missing > _HELD and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _taken(self) -> bytes:
        data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held, self._held_bytes, self._missing = [], 0, 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def _read(self, data: bytes) -> None:
        """Deal with the first message of the bytes and hold the rest."""
        end = data.find(_BREAK) + len(_BREAK)
        if end < len(_BREAK):
            if len(data) > LARGEST or not data[:1].isupper():  # methods are in capitals
                self._hand_over(data)
            else:
                self._wait(data, len(data) + 1)
            return
        raw = data[:end]
        head = self._head if raw == self._raw_head else self._read_head(raw)
        if head is None or head.length is None or not self._fits(head):
            self._hand_over(data)
            return
        whole = end + head.length
        if len(data) < whole:
            self._await_rest(head, data, end, whole)
            return
        self._awaited_since = None
        if len(data) > whole:
            self._hold(data[whole:])
        if head.plain:
            self._infer(head, data[end:whole])
        else:
            self._lend(data[:whole])

    def _await_rest(self, head: Head, data: bytes, end: int, whole: int) -> None:
        """Wait for the rest of a message's body, or let aiohttp."""
        assert head.length is not None
        if head.length > _UNASKED and not (head.plain and self._welcome(head)):
            self._hand_over(data)
        elif whole - len(data) < LARGE or self._encrypted:  # TLS hands over copies of its own
            self._wait(data, whole)
        else:
            self._receive(head, memoryview(data)[end:])

    def awaits_since(self, moment: float) -> bool:
        """Whether the rest of a message has been awaited since that moment of the loop's clock, or for longer."""
        return self._awaited_since is not None and self._awaited_since <= moment

    def _wait(self, data: bytes, whole: int) -> None:
        self._awaited()
        self._missing = whole
        self._hold(data)

    def _awaited(self) -> None:
        if self._awaited_since is None:
            self._awaited_since = self._all.loop.time()

    def _receive(self, head: Head, begun: memoryview) -> None:
        """Let the rest of a body go where it will be decoded."""
        assert self._transport is not None
        self._awaited()
        self._transport.set_protocol(LargeBody(self, head, begun))

    def received(self, head: Head, body: memoryview) -> None:
        """Go on with a body that is whole."""
        assert self._transport is not None
        self._awaited_since = None
        self._transport.set_protocol(self)
        self._infer(head, body)

    def _read_head(self, raw: bytes) -> Head | None:
        """Read a head; the next one on this connection is most often the same."""
        head = read_head(raw)
        self._raw_head, self._head = raw, head
        return head

    def _fits(self, head: Head) -> bool:
        assert head.length is not None
        return head.length <= min(FAST_BODY, self._all.inference.body_limit)

    def _go_on(self) -> None:
        if self._held and not self._busy and not self._blocked and self._held_bytes >= self._missing:
            self._read(self._taken())

    # --- infer ---

    def _infer(self, head: Head, body: bytes | memoryview) -> None:
        inference = self._all.inference
        arrival = inference.arrive(head.model, head.version, head.path, head.headers, self._remote)
        self._busy, self._arrival = True, arrival
        try:
            self._admit(head)
            ticket = inference.serving.submit(inference.decode(arrival, body), self._done)
        except Exception as error:  # noqa: BLE001 -- every error is told in the protocol's form
            self._reply(inference.refuse(error), None, error)
            return
        if self._busy:
            self._ticket = ticket

    def _welcome(self, head: Head) -> bool:
        """Tell whether the caller may infer; aiohttp answers others, without keeping what they send."""
        try:
            self._admit(head)
        except LocexError:
            return False
        return True

    def _admit(self, head: Head) -> None:
        headers = head.headers
        names = (hdrs.HOST, hdrs.ORIGIN, hdrs.AUTHORIZATION)
        admit(self._all.access, {str(name): value for name in names if (value := headers.get(name.lower()))}, Scope.RUN)

    def _done(self, ticket: Ticket) -> None:
        self._ticket = None
        assert self._arrival is not None
        inference = self._all.inference
        error: BaseException | None = ticket.error
        if error is None and ticket.response is not None:
            try:
                self._reply(inference.answer(self._arrival, ticket.response), ticket, None)
            except Exception as fault:  # noqa: BLE001 -- as above
                error = fault
            else:
                return
        assert error is not None
        self._reply(inference.refuse(error), ticket, error)

    def _reply(self, reply: Reply, ticket: Ticket | None, error: BaseException | None) -> None:
        assert self._arrival is not None
        arrival, self._arrival = self._arrival, None
        self._busy = False
        self._write(reply)
        self._all.count(arrival, reply.status)
        self._all.inference.settle(arrival, reply, ticket.response if ticket else None, error)
        if self._all.stopping:
            self.close()
        elif self._held:
            # Not at once: replies that need no waiting would nest.
            self._all.loop.call_soon(self._go_on)

    def _write(self, reply: Reply) -> None:
        if self._transport is None:
            return
        size = reply.size
        head = self._all.head(reply, size)
        if size < _WRITE_WHOLE:
            self._transport.write(b"".join((head, *reply.parts)))
        else:
            self._transport.writelines((head, *reply.parts))

    # --- everything else ---

    def _lend(self, message: bytes) -> None:
        """Let aiohttp answer one message; `released` tells the end."""
        self._busy = True
        self._visit().data_received(message)

    def released(self, _task: object = None) -> None:
        """Go on after aiohttp has answered."""
        self._busy = False
        if self._guest is not None:
            self._guest.keep_alive(True)  # ends aiohttp's timer for idle connections; the sweep sees to them
        if self._transport is not None and not self._transport.is_closing():
            self._all.loop.call_soon(self._go_on)

    def _hand_over(self, data: bytes) -> None:
        """Let aiohttp have the connection."""
        assert self._transport is not None
        guest = self._visit()
        self._all.remove(self)
        del self._all.lent[guest]
        self._transport.set_protocol(guest)
        if rest := self._taken() if self._held else b"":
            data += rest
        guest.data_received(data)

    def _visit(self) -> web.RequestHandler:
        if self._guest is None:
            assert self._transport is not None
            self._guest = self._all.server()
            self._guest.connection_made(self._transport)
            self._all.lent[self._guest] = self
        return self._guest
