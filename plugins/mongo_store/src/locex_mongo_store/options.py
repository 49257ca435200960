"""What an operator may choose besides the URL."""

from __future__ import annotations

from pydantic import Field

from locex.schemas.plugin import PluginConfig


class MongoConfig(PluginConfig):
    """What an operator may choose besides the URL."""

    database: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]{1,63}$",
        description='The database; absent: the one that the URL names, else "locex".',
    )
    sweep_grace: float = Field(
        default=3600, ge=0, description="Unreferenced blobs younger than this are kept by a sweep, in seconds."
    )
    cache_days: float = Field(
        default=7, ge=0, description="Local copies of blobs that were not asked for so long are deleted by a sweep."
    )
    selection_timeout: float = Field(
        default=1.5, gt=0, description="Seconds without a server after which the store is unavailable."
    )
    timeout: float = Field(default=10, gt=0, description="Seconds that a server may take to answer.")
    lease: float = Field(
        default=60, gt=1, description="Seconds without a sign of life after which a node's name is free again."
    )
