"""A participant's visits to a SuperLink."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from flwr.app import Message

from locex.api import FederationContext, Participant
from locex.errors import InvalidConfiguration
from locex_flower import records
from locex_flower.answer import Answer
from locex_flower.backoff import Backoff, ConnectionLost
from locex_flower.endpoint import Endpoint
from locex_flower.fleet import Fleet, MessageLost, Rejected, RunOver
from locex_flower.keys import load_private_key
from locex_flower.secagg import SecureAggregation

if TYPE_CHECKING:
    from locex_flower.settings import FlowerSuperlinkConfig

log = logging.getLogger(__name__)

GLANCE = 1.0
"""Seconds without a message after which a node asks, again and again, whether its run is over."""


class Answers(Protocol):
    """How messages are answered: by `records`, or masked."""

    def trains_beyond(self, participant: Participant, message: Message) -> bool:
        """Tell whether a message asks for more rounds of training than this node takes part in."""

    def answer(self, participant: Participant, message: Message) -> Answer[Message]:
        """Do what the server asks."""


class SuperlinkNode:
    """A federation over a SuperLink."""

    def __init__(self, config: FlowerSuperlinkConfig, context: FederationContext) -> None:
        """Read certificates and key; nothing is connected yet."""
        self._config = config
        self._context = context
        self._endpoint = Endpoint.of(context)
        self._key = load_private_key(config.private_key_file) if config.private_key_file else None
        if self._key is not None and not self._endpoint.secure:
            raise InvalidConfiguration(
                "a SuperLink takes node keys over TLS only",
                remedy="give root certificates or switch TLS on, or leave out private_key_file",
                errors=[{"path": "/private_key_file", "message": "needs TLS"}],
            )

    def run(self, participant: Participant) -> None:
        """Take part until the run is over, or asks for more rounds than the participant takes part in."""
        address = self._context.server_address
        backoff = Backoff(participant, address, self._config, self._context.patience)
        while True:
            participant.waiting(f"connecting to {address}")
            try:
                with Fleet(self._endpoint, backoff, self._key) as fleet:
                    participant.waiting(f"connected to {address}")
                    _Visit(fleet, participant, backoff, self._config, self._context).attend()
                    return
            except Rejected as rejected:
                reason = str(rejected)
            except ConnectionLost:
                return
            if participant.complete:
                return
            backoff.wait(reason)


class _Visit:
    """One registration's work: messages are answered as they come; in between, the node looks after its run."""

    def __init__(
        self,
        fleet: Fleet,
        participant: Participant,
        backoff: Backoff,
        config: FlowerSuperlinkConfig,
        context: FederationContext,
    ) -> None:
        self._fleet = fleet
        self._participant = participant
        self._backoff = backoff
        self._config = config
        self._patience = context.patience
        self._answers = _answers(context)
        self._run_id: int | None = None
        self._last_message = self._last_look = time.monotonic()
        self._over_since: float | None = None

    def attend(self) -> None:
        """Answer until nothing more is expected; raise `ConnectionLost` if a complete participant loses the server."""
        while True:
            try:
                message = self._fleet.pull(retry=not self._participant.complete)
                if message is None:
                    if self._finished():
                        return
                    self._backoff.sleep(self._config.poll_interval)
                elif not self._handle(message):
                    return
            except MessageLost as lost:
                log.warning("a message is left unanswered: %s", lost)
            except RunOver as over:
                log.info("a message is left unanswered: %s", over)
                self._over_since = self._over_since or time.monotonic()

    def _handle(self, message: Message) -> bool:
        """Answer a message; False: this node is asked for more rounds than it takes part in."""
        self._run_id, self._over_since = message.metadata.run_id, None
        began = time.monotonic()
        if self._answers.trains_beyond(self._participant, message):
            self._fleet.push(records.failure(message, "this node has taken part in all its rounds"), 0.0)
            return False
        answered = self._answers.answer(self._participant, message)
        self._fleet.push(answered.reply, time.monotonic() - began)
        if answered.fatal is not None:
            raise answered.fatal
        self._last_message = self._last_look = time.monotonic()
        return True

    def _finished(self) -> bool:
        """Tell whether this node's part is over, asking the server at most once in a `GLANCE`.

        A reply counts as delivered when its run is over; a node that leaves before the server has taken it loses it.
        """
        now = time.monotonic()
        if self._over_since is not None:
            return self._participant.complete or now - self._over_since >= self._config.linger
        if self._run_id is None or now - self._last_look < GLANCE:
            return False
        self._last_look = now
        if not self._fleet.running(self._run_id, retry=not self._participant.complete):
            self._over_since = now
            return self._participant.complete
        return self._participant.complete and now - self._last_message > self._patience


def _answers(context: FederationContext) -> Answers:
    for mechanism in context.mechanisms:
        if isinstance(mechanism, SecureAggregation):
            from locex_flower.secagg_node import MaskedAnswers

            return MaskedAnswers(mechanism)
    return records
