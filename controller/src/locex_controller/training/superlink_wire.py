"""Flower's SuperLink with the Message API: records ``arrays``, ``config`` and ``metrics``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common import GetParametersIns, parameters_to_ndarrays
from flwr.common.constant import MessageTypeLegacy
from flwr.compat.common import recorddict_compat as compat

from locex.api import Contribution, Evaluation, Scalar, Stopped
from locex_controller.training.spec import TrainingSpec
from locex_controller.training.superlink import SuperLink
from locex_controller.training.wire import NodeFailed, Replies

if TYPE_CHECKING:
    from locex.api import Array

ResultT = TypeVar("ResultT")
_POLL = 0.1  # seconds; Flower's own strategies wait 3
_SLACK = 30.0  # seconds that a message may outlive the wait for its reply


class SuperLinkWire:
    """Serves on the port of the spec as soon as it is made."""

    carries_names = True

    def __init__(self, spec: TrainingSpec, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self._link = SuperLink(spec)

    def nodes(self) -> list[str]:
        """Return the ids of the nodes whose heartbeats are fresh."""
        return [str(node) for node in self._link.grid.get_node_ids()]

    def parameters(self, node: str, timeout: float) -> tuple[list[str], list[Array]]:
        """Ask a node by Flower's classic instruction in a record; the Message API has no word of its own for it."""
        content = compat.getparametersins_to_recorddict(GetParametersIns(config={}))

        def read(content: RecordDict) -> list[Array]:
            reply = compat.recorddict_to_getparametersres(content, keep_input=False)
            return cast("list[Array]", parameters_to_ndarrays(reply.parameters))

        replies = self._ask([node], MessageTypeLegacy.GET_PARAMETERS, content, read, timeout)
        if not replies.results.get(node):
            raise NodeFailed(replies.failures.get(node, "it sent no tensors"))
        return [], replies.results[node]

    def fit(
        self,
        nodes: Sequence[str],
        names: Sequence[str],
        parameters: Sequence[Array],
        config: Mapping[str, Scalar],
        timeout: float,
    ) -> Replies[Contribution]:
        """Let nodes train."""

        def read(content: RecordDict) -> Contribution:
            metrics = _metrics(content)
            examples = int(metrics.pop("num-examples"))
            return Contribution(_in_order(_named(content), names), examples, _texts(content) | metrics)

        return self._ask(nodes, MessageType.TRAIN, _content(names, parameters, config), read, timeout)

    def evaluate(
        self,
        nodes: Sequence[str],
        names: Sequence[str],
        parameters: Sequence[Array],
        config: Mapping[str, Scalar],
        timeout: float,
    ) -> Replies[Evaluation]:
        """Let nodes evaluate."""

        def read(content: RecordDict) -> Evaluation:
            metrics = {name: float(value) for name, value in _metrics(content).items()}
            examples = int(metrics.pop("num-examples"))
            loss = metrics.pop("loss") if "loss" in metrics else metrics.pop("eval_loss", float("nan"))
            return Evaluation(loss, examples, metrics)

        return self._ask(nodes, MessageType.EVALUATE, _content(names, parameters, config), read, timeout)

    def close(self) -> None:
        """Finish the run; the wire has no word for it, nodes know the number of rounds."""
        self._link.close()

    def _ask(
        self,
        nodes: Sequence[str],
        kind: str,
        content: RecordDict,
        read: Callable[[RecordDict], ResultT],
        timeout: float,
    ) -> Replies[ResultT]:
        sent = [Message(content, int(node), kind) for node in nodes]
        return self.exchange(sent, lambda reply: read(reply.content), timeout)

    def exchange(self, sent: Sequence[Message], read: Callable[[Message], ResultT], timeout: float) -> Replies[ResultT]:
        """Send messages, each to its node, and wait for the replies; what ``read`` raises is its node's failure."""
        nodes = [str(message.metadata.dst_node_id) for message in sent]
        for message in sent:
            message.metadata.ttl = timeout + _SLACK
        replies: Replies[ResultT] = Replies()
        pending: dict[str, str] = {}
        for message_id, node in zip(self._link.grid.push_messages(sent), nodes, strict=True):
            if message_id:
                pending[message_id] = node
            else:
                replies.failures[node] = "the SuperLink did not take its message"
        deadline = time.monotonic() + timeout
        while pending and time.monotonic() < deadline:
            if self._should_stop():
                raise Stopped
            for reply in self._link.grid.pull_messages(list(pending)):
                _keep(replies, pending.pop(reply.metadata.reply_to_message_id), reply, read)
            if pending:
                time.sleep(_POLL)
        replies.failures.update(dict.fromkeys(pending.values(), f"no answer within {timeout:g} s"))
        return replies


def _keep(replies: Replies[ResultT], node: str, reply: Message, read: Callable[[Message], ResultT]) -> None:
    if reply.has_error():
        replies.failures[node] = reply.error.reason or f"error {reply.error.code}"
        return
    try:
        replies.results[node] = read(reply)
    except Exception as error:  # noqa: BLE001 -- whatever a node sends is this node's failure at most
        replies.failures[node] = f"its reply cannot be read: {type(error).__name__}: {error}"


def _content(names: Sequence[str], parameters: Sequence[Array], config: Mapping[str, Scalar]) -> RecordDict:
    keys = names or [str(index) for index in range(len(parameters))]
    arrays = {name: FlowerArray(np.asarray(array)) for name, array in zip(keys, parameters, strict=True)}
    fields: dict[str, Any] = {**config, "server-round": config["server_round"]}
    return RecordDict({"arrays": ArrayRecord(arrays), "config": ConfigRecord(fields)})


def _named(content: RecordDict) -> dict[str, Array]:
    record = content.array_records["arrays"]
    return {name: array.numpy() for name, array in record.items()}


def _in_order(named: dict[str, Array], names: Sequence[str]) -> list[Array]:
    """Sort by the global names; a node that names its tensors otherwise keeps its own order."""
    if set(named) == set(names):
        return [named[name] for name in names]
    if all(name.isdecimal() for name in named):
        return [named[name] for name in sorted(named, key=int)]
    return list(named.values())


def _texts(content: RecordDict) -> dict[str, Any]:
    """Return what nodes tell beside their metrics, which in this API are numbers."""
    records = content.config_records.values()
    return {name: value for record in records for name, value in record.items() if isinstance(value, str)}


def _metrics(content: RecordDict) -> dict[str, Any]:
    record: MetricRecord = content.metric_records["metrics"]
    return {name: value for name, value in record.items() if isinstance(value, int | float)}
