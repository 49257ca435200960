"""One registration at a SuperLink, over its Fleet API (protobuf over HTTP).

Flower's own connection exits the process when it cannot register, sends it SIGINT when the SuperLink answers 401 (a
restarted one does), and cannot be interrupted while it retries; so the calls are made here, on its client.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient

from locex_flower.backoff import Backoff, ConnectionLost
from locex_flower.endpoint import Endpoint

log = logging.getLogger(__name__)

HEARTBEAT = HEARTBEAT_DEFAULT_INTERVAL / 2
"""Seconds between heartbeats; a SuperLink tolerates twice its interval."""
UPLOAD_POLL = 0.1
"""Seconds until a content that the server app is still uploading is asked for again; grows tenfold."""
FAREWELL = 2.0
"""Seconds that a leaving node waits for the SuperLink's answer."""

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class Rejected(Exception):
    """The SuperLink does not know this node (any more), or refuses it; the text says why."""


class RunOver(Exception):
    """The run that a call belongs to is not running."""


class MessageLost(Exception):
    """The SuperLink no longer has a message's content, or does not take a reply's; the run may go on."""


class Fleet:
    """A context in which this node is registered, active and sends heartbeats.

    Every call retries a server that cannot be reached or fails, as long as the backoff's patience lasts: to register
    anew would lose the messages for this node, and the round would wait for them. Raises `Rejected`, `RunOver`,
    `MessageLost`, `FederationLost`, or `Stopped`.
    """

    def __init__(self, endpoint: Endpoint, backoff: Backoff, key: ec.EllipticCurvePrivateKey | None) -> None:
        """``key`` None: the node registers itself with a fresh key."""
        self._self_registered = key is None
        self._key = key or generate_key_pairs()[0]
        self._endpoint = endpoint
        self._backoff = backoff
        self._client = endpoint.client(self._key)
        self._node = Node()
        self._leaving = threading.Event()

    def __enter__(self) -> Self:
        """Register."""
        public_key = public_key_to_bytes(self._key.public_key())
        try:
            if self._self_registered:
                self._call(self._client.RegisterNode, RegisterNodeFleetRequest(public_key=public_key))
            request = ActivateNodeRequest(public_key=public_key, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
            self._node = Node(node_id=self._call(self._client.ActivateNode, request).node_id)
        except BaseException:
            self._client.close()
            raise
        threading.Thread(target=self._beat, name="flower-heartbeat", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye to a server that is there and knows this node."""
        self._leaving.set()
        self._client.close()
        if self._backoff.lost or kind is Rejected:
            return
        node_id = self._node.node_id
        with self._endpoint.client(self._key, timeout=FAREWELL) as client:
            try:
                client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
                if self._self_registered:
                    client.UnregisterNode(UnregisterNodeFleetRequest(node_id=node_id))
            except httpx.HTTPError as problem:
                log.debug("the SuperLink did not take the goodbye: %s", problem)

    def pull(self, *, retry: bool) -> Message | None:
        """Return the next message, None if there is none; without ``retry``, raise `ConnectionLost` at once."""
        response = self._call(self._client.PullMessages, PullMessagesRequest(node=self._node), retry=retry)
        self._backoff.progress()
        if not response.messages_list:
            return None
        run_id, tree = response.messages_list[0].metadata.run_id, response.message_object_trees[0]
        try:
            return self._inflate(run_id, tree)
        except ObjectPullError as error:
            raise MessageLost(str(error)) from error

    def push(self, reply: Message, seconds: float) -> None:
        """Send a reply; ``seconds`` is the time that it took to make."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        run_id = reply.metadata.run_id
        with no_object_id_recompute():
            request = PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[seconds],
            )
            response = self._call(self._client.PushMessages, request)
            store = make_push_object_fn_protobuf(
                lambda part: self._call(self._client.PushObject, part), self._node, run_id, response.session_id
            )
            try:
                push_objects(get_all_nested_objects(reply), store, object_ids_to_push=set(response.objects_to_push))
            except ObjectPushError as error:
                raise MessageLost(str(error)) from error

    def running(self, run_id: int, *, retry: bool) -> bool:
        """Tell whether a run is still running."""
        try:
            self._call(self._client.GetRun, GetRunRequest(node=self._node, run_id=run_id), retry=retry)
        except RunOver:
            return False
        return True

    def _inflate(self, run_id: int, tree: ObjectTree) -> Message:
        message = pull_and_inflate_object_from_tree(
            tree,
            make_pull_object_fn_protobuf(lambda part: self._call(self._client.PullObject, part), self._node, run_id),
            make_confirm_message_received_fn_protobuf(
                lambda part: self._call(self._client.ConfirmMessageReceived, part), self._node, run_id
            ),
            return_type=Message,
            max_tries_per_object=None,
            initial_backoff=UPLOAD_POLL,
            backoff_cap=10 * UPLOAD_POLL,
        )
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def _call(self, method: Callable[[RequestT], ResponseT], request: RequestT, *, retry: bool = True) -> ResponseT:
        while True:
            self._backoff.sleep(0)  # a stop is seen between calls
            try:
                return method(request)
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
            except httpx.HTTPStatusError as error:
                reason = _retryable(error)
            if not retry:
                raise ConnectionLost(reason)
            self._backoff.wait(reason)

    def _beat(self) -> None:
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        with self._endpoint.client(self._key) as client:
            while not self._leaving.wait(HEARTBEAT):
                _try_heartbeat(client, request)


def _try_heartbeat(client: FleetHttpClient, request: SendNodeHeartbeatRequest) -> None:
    try:
        client.SendNodeHeartbeat(request)
    except httpx.HTTPError as error:  # the next pull meets the same fault and handles it
        log.debug("a heartbeat failed: %s", error)


def _retryable(error: httpx.HTTPStatusError) -> str:
    """Return why a call is worth another try; raise what is not."""
    status = error.response.status_code
    told = FlowerError.from_json(error.response.text)
    if told is None:
        if error.response.is_server_error:
            return f"HTTP {status}"
        raise Rejected(f"the SuperLink answered HTTP {status}") from error
    if told.code in {ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, ApiErrorCode.FLEET_GET_RUN_FAILED}:
        raise RunOver(told.message) from error
    raise Rejected(f"the SuperLink answered HTTP {status}: {told.message}") from error
