"""Flower's classic gRPC channel: every node keeps one stream open."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flwr.common import (
    Code,
    EvaluateIns,
    FitIns,
    GetParametersIns,
    ReconnectIns,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common import (
    Parameters as FlowerParameters,
)
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.superlink.fleet.grpc_bidi.grpc_server import start_grpc_server
from flwr.supercore.grpc import GRPC_MAX_MESSAGE_LENGTH

from locex.api import Contribution, Evaluation, Scalar, Stopped
from locex_controller.training.spec import TrainingSpec
from locex_controller.training.wire import NodeFailed, Replies

if TYPE_CHECKING:
    from locex.api import Array

ResultT = TypeVar("ResultT")
_GRACE = 5.0  # seconds beyond the node's own time, within which the stream reports the time-out itself
_POLL = 0.2


class GrpcWire:
    """Serves on the port of the spec as soon as it is made."""

    carries_names = False

    def __init__(self, spec: TrainingSpec, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self._clients = SimpleClientManager()
        # start_grpc_server is what start_server wraps; it takes no signal handlers and leaves the rounds to us.
        self._server = start_grpc_server(
            client_manager=self._clients,
            server_address=f"{spec.host}:{spec.port}",
            max_message_length=GRPC_MAX_MESSAGE_LENGTH,
            certificates=_certificates(spec),
        )

    def nodes(self) -> list[str]:
        """Return the ids of the open streams."""
        return list(self._clients.all())

    def parameters(self, node: str, timeout: float) -> tuple[list[str], list[Array]]:
        """Ask a node for its parameters; the wire carries no names."""

        def ask(client: ClientProxy) -> list[Array]:
            reply = client.get_parameters(GetParametersIns(config={}), timeout=timeout, group_id=0)
            _must_be_ok(reply.status)
            return _arrays(reply.parameters)

        replies = self._ask([node], ask, timeout)
        if not replies.results.get(node):
            raise NodeFailed(replies.failures.get(node, "it sent no tensors"))
        return [], replies.results[node]

    def fit(
        self,
        nodes: Sequence[str],
        names: Sequence[str],  # noqa: ARG002 -- this wire carries none
        parameters: Sequence[Array],
        config: Mapping[str, Scalar],
        timeout: float,
    ) -> Replies[Contribution]:
        """Let nodes train."""
        sent = ndarrays_to_parameters(list(parameters))

        def ask(client: ClientProxy) -> Contribution:
            reply = client.fit(FitIns(sent, dict(config)), timeout=timeout, group_id=_round(config))
            _must_be_ok(reply.status)
            return Contribution(_arrays(reply.parameters), reply.num_examples, dict(reply.metrics))

        return self._ask(nodes, ask, timeout)

    def evaluate(
        self,
        nodes: Sequence[str],
        names: Sequence[str],  # noqa: ARG002 -- this wire carries none
        parameters: Sequence[Array],
        config: Mapping[str, Scalar],
        timeout: float,
    ) -> Replies[Evaluation]:
        """Let nodes evaluate."""
        sent = ndarrays_to_parameters(list(parameters))

        def ask(client: ClientProxy) -> Evaluation:
            reply = client.evaluate(EvaluateIns(sent, dict(config)), timeout=timeout, group_id=_round(config))
            _must_be_ok(reply.status)
            return Evaluation(reply.loss, reply.num_examples, _numbers(reply.metrics))

        return self._ask(nodes, ask, timeout)

    def close(self) -> None:
        """Send every node away for good, as far as it listens, and stop serving."""
        self._ask(self.nodes(), _dismiss, _GRACE, heed_stop=False)
        self._server.stop(grace=1).wait()

    def _ask(
        self, nodes: Sequence[str], ask: Callable[[ClientProxy], ResultT], timeout: float, *, heed_stop: bool = True
    ) -> Replies[ResultT]:
        """Ask every node in a thread of its own; daemons, since a node that hangs must not keep the process alive."""
        clients = dict(self._clients.all())
        pending = {_in_thread(ask, clients.get(node)): node for node in nodes}
        replies: Replies[ResultT] = Replies()
        deadline = time.monotonic() + timeout + _GRACE
        while pending and time.monotonic() < deadline:
            if heed_stop and self._should_stop():
                raise Stopped
            done, _ = concurrent.futures.wait(pending, timeout=_POLL, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                _keep(replies, pending.pop(future), future)
        replies.failures.update(dict.fromkeys(pending.values(), f"no answer within {timeout:g} s"))
        return replies


def _dismiss(client: ClientProxy) -> None:
    """Send a node away; one that still trains is sent away when it answers, if that is soon."""
    deadline = time.monotonic() + _GRACE
    while True:
        try:
            client.reconnect(ReconnectIns(seconds=None), timeout=_GRACE, group_id=None)
        except ValueError:  # what flwr raises for a stream that is asked something already
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL)
        else:
            return


def _in_thread(ask: Callable[[ClientProxy], ResultT], client: ClientProxy | None) -> concurrent.futures.Future[ResultT]:
    future: concurrent.futures.Future[ResultT] = concurrent.futures.Future()

    def run() -> None:
        try:
            if client is None:
                raise NodeFailed("it disconnected")  # noqa: TRY301 -- told like every other failure
            future.set_result(ask(client))
        except BaseException as error:  # noqa: BLE001 -- flwr raises many kinds; all are this node's failure
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _keep(replies: Replies[ResultT], node: str, future: concurrent.futures.Future[ResultT]) -> None:
    error = future.exception()
    if error is None:
        replies.results[node] = future.result()
    elif type(error).__name__ == "GrpcBridgeClosed":
        replies.failures[node] = "it disconnected or did not answer in time"
    else:
        replies.failures[node] = str(error) or type(error).__name__


def _must_be_ok(status: Status) -> None:
    if status.code != Code.OK:
        raise NodeFailed(status.message or status.code.name)


def _arrays(parameters: FlowerParameters) -> list[Array]:
    """Decode tensors. flwr reads them with ``allow_pickle=False``."""
    return cast("list[Array]", parameters_to_ndarrays(parameters))


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}


def _round(config: Mapping[str, Scalar]) -> int:
    return int(config["server_round"])


def _certificates(spec: TrainingSpec) -> tuple[bytes, bytes, bytes] | None:
    if spec.tls is None:
        return None
    return spec.tls.ca.read_bytes(), spec.tls.certificate.read_bytes(), spec.tls.key.read_bytes()
