"""The state of a training that a builder saves: whether it may be taken up with what is installed."""

from __future__ import annotations

from importlib.metadata import version

from locex.errors import LocexError


def require_version(distribution: str, saved: str) -> None:
    """Raise `LocexError` (``state-incompatible``) where another major version of a builder's package saved a state."""
    installed = version(distribution)
    if saved.partition(".")[0] != installed.partition(".")[0]:
        raise incompatible(f"the saved state is of {distribution} {saved}, installed is {installed}")


def incompatible(message: str) -> LocexError:
    """Return the error for a state that does not fit; ``message`` says what it is of, and what the job has."""
    return LocexError(
        message,
        remedy="resume with the packages and the configuration that the training began with, or start it anew",
        code="state-incompatible",
    )
