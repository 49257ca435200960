"""What a node answers, and whether its participation ends with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from locex.errors import LocexError, PrivacyRefused

ReplyT = TypeVar("ReplyT")


@dataclass(frozen=True, slots=True)
class Answer(Generic[ReplyT]):
    """A reply to send; ``fatal`` is raised after it is sent."""

    reply: ReplyT
    fatal: LocexError | None = None

    @classmethod
    def refusal(cls, reply: ReplyT, error: LocexError) -> Answer[ReplyT]:
        """Count as the server's failure of this round; a spent privacy budget ends the participation."""
        return cls(reply, error if isinstance(error, PrivacyRefused) else None)


def reason_of(error: LocexError) -> str:
    """Return the text that the server is told."""
    return f"{error.error_code}: {error.message}"
