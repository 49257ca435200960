"""What the federations let operators configure."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from locex.schemas.plugin import PluginConfig


class ConnectionConfig(PluginConfig):
    """How a lost connection is tried again; the node's patience bounds all tries together."""

    backoff_initial: float = Field(default=1.0, gt=0, description="Seconds before the first new try; doubled each try.")
    backoff_max: float = Field(default=30.0, gt=0, description="The longest wait between two tries, in seconds.")


class FlowerGrpcConfig(ConnectionConfig):
    """Settings of ``flower-grpc``."""

    max_message_mb: int = Field(
        default=2047,
        ge=1,
        le=2047,
        description="Largest message in MiB, either way; servers have a limit of their own (old ones 512).",
    )
    linger: float = Field(
        default=30.0,
        ge=0,
        description="Seconds that a node which has taken part in all its rounds tries to come back to a server that "
        "it lost: a restarted one may repeat the last round or its evaluation.",
    )


class FlowerSuperlinkConfig(ConnectionConfig):
    """Settings of ``flower-superlink``."""

    poll_interval: float = Field(default=0.2, gt=0, description="Seconds between two questions for a message.")
    linger: float = Field(
        default=5.0,
        ge=0,
        description="Seconds that a node which has not taken part in all its rounds stays after the end of a run.",
    )
    private_key_file: Path | None = Field(
        default=None,
        description="The node's EC P-384 private key (OpenSSH or PEM), registered at the SuperLink; needs TLS. "
        "Without it the node registers itself with a fresh key.",
    )
