"""What is followed, where, and what a new version must show before it serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from locex.errors import InvalidConfiguration
from locex.schemas.model import Name
from locex.settings import Words

_NAME: TypeAdapter[str] = TypeAdapter(Name)
EVERY = "*"


@dataclass(frozen=True, slots=True)
class Followed:
    """A model that is followed at a service by its URL; the name ``*`` means every model there."""

    name: str
    url: str


class FollowSettings(BaseSettings):
    """Settings of the loop from training to serving."""

    model_config = SettingsConfigDict(env_prefix="LOCEX_", env_ignore_empty=True, extra="ignore", populate_by_name=True)

    follow: Words = Field(
        default=[], description="Models to follow: names, or name=URL of a node or FL Repository; * is every model."
    )
    node_address: str | None = Field(default=None, description="The node that trains, host:port or URL.")
    node_token_file: Path | None = Field(default=None, description="File with a token of that node, scope read.")
    node_ca: Path | None = Field(default=None, description="PEM file of the CA of the node's certificate.")
    repository_address: str | None = Field(
        default=None,
        validation_alias="REPOSITORY_ADDRESS",
        description="The FL Repository, host:port or URL; followed where no node is named.",
    )
    follow_interval: float = Field(default=2, gt=0, description="Seconds between looks at what is followed.")
    follow_backoff: float = Field(default=60, gt=0, description="Most seconds between looks at a service that fails.")
    follow_uploads: bool = Field(
        default=False, description="Follow versions that were uploaded to a node too, not only those trained there."
    )
    follow_pipeline: bool = Field(
        default=False,
        description="Serve followed models behind the pipeline of their training: callers send data as their site has.",
    )
    guard: Literal["off", "possible", "required"] = Field(
        default="possible",
        description="Evaluate a version on local test data before it serves: never, where there are data, or always.",
    )
    guard_margin: float = Field(
        default=0.02,
        ge=0,
        description="How much worse than the served version a new one may be: accuracy by so much, error by that part.",
    )
    guard_examples: int = Field(default=2000, gt=0, description="Test examples to evaluate on, at most.")
    guard_timeout: float = Field(default=300, gt=0, description="Seconds that an evaluation may take.")
    guard_memory_mb: int = Field(default=4096, gt=0, description="Memory that an evaluation may take, in MiB.")

    def followed(self) -> list[Followed]:
        """Return what is followed; raise `InvalidConfiguration` for what is no name, or has no service."""
        return [self._one(text) for text in self.follow]

    def _one(self, text: str) -> Followed:
        name, separator, url = text.partition("=")
        url = url or self.node_address or self.repository_address or ""
        if (separator and not url) or not url:
            raise InvalidConfiguration(
                f"LOCEX_FOLLOW: {text!r} names no service, and there is no node",
                remedy="set LOCEX_NODE_ADDRESS or REPOSITORY_ADDRESS, or write name=URL",
            )
        if name != EVERY:
            try:
                _NAME.validate_python(name)
            except ValidationError:
                raise InvalidConfiguration(
                    f"LOCEX_FOLLOW: {name!r} is no model's name", remedy="write name, or name=URL, with commas between"
                ) from None
        return Followed(name, url_of(url))


def url_of(address: str) -> str:
    """Return the URL of a service that is written as host:port or URL."""
    return (address if "://" in address else f"http://{address}").rstrip("/")
