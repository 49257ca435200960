"""What both federations let users configure."""

from __future__ import annotations

from pydantic import Field

from locex.schemas.plugin import PluginConfig


class ConnectionConfig(PluginConfig):
    """How a lost connection is tried again; the node's patience bounds all tries together."""

    backoff_initial: float = Field(default=1.0, gt=0, description="Seconds before the first new try; doubled each try.")
    backoff_max: float = Field(default=30.0, gt=0, description="The longest wait between two tries, in seconds.")
