"""The node as a federation sees it, and the connection to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from locex.api.privacy import PrivacyMechanism, Update
from locex.api.training import Evaluation
from locex.api.values import Incoming, Parameters, Scalar


class Participant(Protocol):
    """The node as a federation sees it; the worker implements it. Not thread-safe: one call at a time."""

    @property
    def rounds(self) -> int | None:
        """The most rounds this node takes part in, where known."""

    @property
    def complete(self) -> bool:
        """Whether every expected round is over for this node."""

    @property
    def stopping(self) -> bool:
        """Whether the job was asked to stop."""

    def waiting(self, reason: str) -> None:
        """Tell that the node waits for the federation (connecting, connected, retrying in … s)."""

    def parameters(self) -> Parameters:
        """Return the parameters as they are, as far as mechanisms allow."""

    def fit(self, parameters: Incoming, config: Mapping[str, Scalar]) -> Update:
        """Train one round; every call either returns what may be sent or raises."""

    def evaluate(self, parameters: Incoming, config: Mapping[str, Scalar]) -> Evaluation:
        """Evaluate global parameters."""


@dataclass(frozen=True, slots=True)
class FederationContext:
    """Where and how to connect. ``folder`` is the run's own, for keys that must survive a restart.

    ``mechanisms`` are the job's privacy mechanisms in the order in which they act. A federation that is part of one,
    since its protocol with the server protects the updates, finds its half among them; others need not look.
    """

    server_address: str
    folder: Path
    root_certificates: Path | None = None
    insecure: bool = True
    patience: float = 600.0
    """Seconds without progress after which a server that cannot be reached is given up."""
    mechanisms: Sequence[PrivacyMechanism] = ()


class Federation(Protocol):
    """A connection to a federation. Created by ``locex_create_federation``."""

    def run(self, participant: Participant) -> None:
        """Drive the participant until the server ends the training or the participant is complete.

        Reconnects with backoff. Raises `FederationLost` when patience ends, `Stopped` when the job is stopped.
        """
