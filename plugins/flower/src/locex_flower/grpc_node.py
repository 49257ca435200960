"""A participant's visits to a classic Flower server."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from flwr.common import serde
from flwr.common.typing import EvaluateRes, FitIns, FitRes, GetParametersRes
from flwr.proto.transport_pb2 import ClientMessage, Reason, ServerMessage

from locex.api import FederationContext, Participant, Stopped
from locex_flower import legacy
from locex_flower.backoff import Backoff, ConnectionLost
from locex_flower.channel import Channel
from locex_flower.values import beyond

if TYPE_CHECKING:
    from locex_flower.settings import FlowerGrpcConfig

GLANCE = 0.2
"""Seconds after which a node that waits for a message looks whether it was stopped."""


class GrpcNode:
    """A federation over the classic channel."""

    def __init__(self, config: FlowerGrpcConfig, context: FederationContext) -> None:
        """Keep what is needed; nothing is connected yet."""
        self._config = config
        self._context = context

    def run(self, participant: Participant) -> None:
        """Take part until the server says goodbye or asks for more rounds than the participant takes part in."""
        backoff = Backoff(participant, self._context.server_address, self._config, self._context.patience)
        linger = min(self._config.linger, self._context.patience)  # a node whose part is over does not fail
        while True:
            participant.waiting(f"connecting to {self._context.server_address}")
            limit = min(self._config.max_message_mb * 2**20, 2**31 - 1)
            with closing(Channel(self._context, limit)) as channel:
                try:
                    pause = self._attend(channel, participant, backoff)
                except ConnectionLost as lost:
                    reason = str(lost)
                else:
                    if not pause:
                        return
                    backoff.sleep(pause)
                    continue
                if channel.proven:
                    backoff.progress()  # a server that was silent for long and dies is a new loss
            if not participant.complete:
                backoff.wait(reason)
            elif (left := linger - backoff.lost_for) > 0:
                backoff.wait(reason, left)
            else:
                return

    def _attend(self, channel: Channel, participant: Participant, backoff: Backoff) -> int:
        """Answer until the server says goodbye; return the seconds after which it wants this node back, else 0."""
        idle_told = False
        while True:
            message = channel.receive(GLANCE)
            if participant.stopping:
                raise Stopped
            if message is None:
                if not idle_told:
                    participant.waiting(f"waiting for instructions of {self._context.server_address}")
                    idle_told = True
                continue
            backoff.progress()
            idle_told = False
            if message.WhichOneof("msg") == "reconnect_ins":
                return _part(channel, message.reconnect_ins.seconds)
            if not _answer(channel, participant, message):
                return 0


def _part(channel: Channel, seconds: int) -> int:
    reason = Reason.RECONNECT if seconds else Reason.ACK
    channel.send(ClientMessage(disconnect_res=ClientMessage.DisconnectRes(reason=reason)))
    channel.flush()
    return seconds


def _answer(channel: Channel, participant: Participant, message: ServerMessage) -> bool:
    """Answer a message; False: this node is asked for more rounds than it takes part in."""
    ins = _instruction(message)
    if isinstance(ins, FitIns) and beyond(participant, ins.config):
        return False
    answered = legacy.answer(participant, ins)
    channel.send(_message(answered.reply))
    if answered.fatal is not None:
        channel.flush()
        raise answered.fatal
    return True


def _instruction(message: ServerMessage) -> legacy.Ins:
    kind = message.WhichOneof("msg")
    if kind == "fit_ins":
        return serde.fit_ins_from_proto(message.fit_ins)
    if kind == "evaluate_ins":
        return serde.evaluate_ins_from_proto(message.evaluate_ins)
    if kind == "get_parameters_ins":
        return serde.get_parameters_ins_from_proto(message.get_parameters_ins)
    if kind == "get_properties_ins":
        return serde.get_properties_ins_from_proto(message.get_properties_ins)
    raise ConnectionLost("the server sent an instruction that this version of Flower does not know")


def _message(res: legacy.Res) -> ClientMessage:
    if isinstance(res, FitRes):
        return ClientMessage(fit_res=serde.fit_res_to_proto(res))
    if isinstance(res, EvaluateRes):
        return ClientMessage(evaluate_res=serde.evaluate_res_to_proto(res))
    if isinstance(res, GetParametersRes):
        return ClientMessage(get_parameters_res=serde.get_parameters_res_to_proto(res))
    return ClientMessage(get_properties_res=serde.get_properties_res_to_proto(res))
