"""The classic channel: one bidirectional stream of ServerMessage and ClientMessage.

Flower's own client connection cannot be interrupted, never lets go of its sending thread and cancels the stream before
its last message is out; the stream's protocol is frozen, so it is spoken here.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import grpc
from flwr.proto.transport_pb2 import ClientMessage, ServerMessage
from flwr.proto.transport_pb2_grpc import FlowerServiceStub

from locex.api import FederationContext
from locex.errors import FederationLost
from locex_flower.backoff import ConnectionLost

CONNECT_TIMEOUT = 30.0
"""Seconds after which no attempt to connect is still open; gRPC's own limit is 20. (To watch a channel's state while it
is closed makes gRPC's watching thread fail.)"""
PARTING = 1.0
"""Seconds that the server has, after its goodbye was answered, to end the stream itself."""


class Channel:
    """An open stream. Messages are read in a thread, so that waiting for one can be interrupted."""

    def __init__(self, context: FederationContext, max_message_bytes: int) -> None:
        """Begin to connect; root certificates imply TLS."""
        options = [
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.use_local_subchannel_pool", 1),  # else a new channel inherits the connection delays of the last one
            ("grpc.keepalive_time_ms", 330_000),  # finds a vanished host; servers allow one ping in 300 s
            ("grpc.http2.max_pings_without_data", 0),
        ]
        if context.root_certificates is None and context.insecure:
            self._channel = grpc.insecure_channel(context.server_address, options=options)
        else:
            roots = context.root_certificates.read_bytes() if context.root_certificates else None
            credentials = grpc.ssl_channel_credentials(roots)
            self._channel = grpc.secure_channel(context.server_address, credentials, options=options)
        self._opened = time.monotonic()
        self._inbox: queue.SimpleQueue[ServerMessage | Exception] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[ClientMessage | None] = queue.SimpleQueue()
        self._sent = threading.Event()
        self._ended = threading.Event()
        self._responses = FlowerServiceStub(self._channel).Join(self._requests())
        threading.Thread(target=self._read, name="flower-grpc", daemon=True).start()

    @property
    def proven(self) -> bool:
        """Whether the stream has lived so long that it was certainly connected."""
        return time.monotonic() - self._opened > CONNECT_TIMEOUT

    def receive(self, seconds: float) -> ServerMessage | None:
        """Return the next message, None if there is none in time; raise `ConnectionLost`."""
        try:
            received = self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(received, Exception):
            raise received
        return received

    def send(self, message: ClientMessage) -> None:
        """Send a message, in the background."""
        self._sent.clear()
        self._outbox.put(message)

    def flush(self) -> None:
        """Wait until the last message is out; give the server a moment to end the stream."""
        self._sent.wait(PARTING)
        self._ended.wait(PARTING)

    def close(self) -> None:
        """End the stream and its threads."""
        self._outbox.put(None)
        self._channel.close()

    def _requests(self) -> Iterator[ClientMessage]:
        while (message := self._outbox.get()) is not None:
            yield message
            self._sent.set()  # gRPC asks for the next message after the last one went to the transport

    def _read(self) -> None:
        try:
            for message in self._responses:
                self._inbox.put(message)
            self._inbox.put(ConnectionLost("the server ended the stream"))
        except grpc.RpcError as error:
            self._inbox.put(_lost(error))
        finally:
            self._ended.set()


def _lost(error: grpc.RpcError) -> Exception:
    code, details = error.code().name, error.details() or ""
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in details:
        return FederationLost(
            f"a message of the server is larger than this node takes: {details}",
            remedy="raise max_message_mb of flower-grpc, here and at the server",
        )
    return ConnectionLost(f"{code}: {details}")
