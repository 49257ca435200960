"""How it stands with a followed model, as ``GET /follow`` tells it."""

from __future__ import annotations

import time
from typing import Literal

from pydantic import BaseModel, Field

from locex_inference.following.shelf import Decision, ModelState

Phase = Literal["waiting", "fetching", "checking", "loading", "following"]
_TOLD = 10  # decisions


class FollowedModel(BaseModel):
    """One model, where it comes from, and what became of its versions."""

    model: str = Field(description="The model's name.")
    url: str = Field(description="The node or FL Repository where it is followed.")
    phase: Phase = Field(default="waiting", description="What is being done; following: nothing is new.")
    version: str | None = Field(default=None, description="The version that is being fetched, checked or loaded.")
    serving: str | None = Field(default=None, description="The version that was taken last, or rolled back to.")
    former: str | None = Field(default=None, description="The version that a rollback would serve.")
    checked: float | None = Field(default=None, description="When the service answered last, since the epoch.")
    error: str | None = Field(default=None, description="Why the service could not be asked; null: it could.")
    since: float | None = Field(default=None, description="Since when it cannot.")
    decisions: list[Decision] = Field(default=[], description="What became of the newest offers, newest first.")

    def enter(self, phase: Phase, version: str) -> None:
        """Tell what is being done with a version."""
        self.phase, self.version = phase, version

    def settle(self, state: ModelState) -> None:
        """Tell that nothing is new."""
        self.phase, self.version, self.error, self.since = "following", None, None, None
        self.serving = state.serving.version if state.serving else None
        self.former = state.former.version if state.former else None
        self.decisions = list(state.decisions.values())[: -_TOLD - 1 : -1]

    def fail(self, reason: str) -> None:
        """Tell that the service could not be asked."""
        self.phase, self.version = "waiting", None
        self.since = self.since if self.error else time.time()
        self.error = reason
