"""What every mechanism of this package does unless it has a reason not to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from locex.api import Incoming, Scalar, TrainingSession


class Mechanism:
    """Plain arrays leave over any wire, arrive as they are, and what must last is in the ledger or mounted."""

    def requires(self, federation: str) -> None:
        """Accept every federation."""

    def prepare(self, session: TrainingSession) -> None:
        """Leave the session as it is."""

    def before_fit(self, config: Mapping[str, Scalar]) -> None:
        """Charge nothing."""

    def incoming(
        self,
        parameters: Incoming,
        config: Mapping[str, Scalar],  # noqa: ARG002 -- the Protocol's
    ) -> Incoming:
        """Return what arrived."""
        return parameters

    def state(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""
