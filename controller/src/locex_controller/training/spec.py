"""What a training process is told at its start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FederationName = Literal["flower-grpc", "flower-superlink"]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0)]


class Tls(BaseModel):
    """Paths of the server's certificates, PEM."""

    ca: Path = Field(description="Certificate of the authority.")
    certificate: Path = Field(description="The server's certificate.")
    key: Path = Field(description="The server's private key.")


class Plan(BaseModel):
    """How many rounds, with how many nodes, and how long to wait for them."""

    model_config = ConfigDict(allow_inf_nan=False)

    num_rounds: int = Field(default=3, gt=0, description="Rounds in all, those before a restart included.")
    round_timeout: Seconds = Field(default=600, description="A node may take this long per fit or evaluation.")
    wait_timeout: Seconds = Field(default=3600, description="How long enough nodes are waited for.")
    fraction_fit: Share = Field(default=1.0, description="Share of the connected nodes that train in a round.")
    fraction_evaluate: Share = Field(default=1.0, description="Share that evaluates; 0: no evaluation.")
    min_fit_clients: int = Field(default=1, gt=0, description="Nodes, and good results, that a round needs.")
    min_evaluate_clients: int = Field(default=1, ge=0, description="Nodes that evaluate, at least.")
    min_available_clients: int = Field(default=1, gt=0, description="Nodes that must be connected.")
    min_completion_rate_fit: Share = Field(default=0.0, description="Share of a round's nodes that must succeed.")
    accept_failures: bool = Field(default=True, description="Whether a round counts in which a node failed.")
    round_attempts: int = Field(default=3, gt=0, description="How often a round is tried before the training fails.")

    def needed(self) -> int:
        """Return how many nodes must be connected before a round starts."""
        return max(self.min_available_clients, self.min_fit_clients)


class AggregationSpec(BaseModel):
    """Which aggregation, and its fields. ``pointer`` and ``config_pointer`` tell where the user wrote them."""

    name: str = "fedavg"
    pointer: str = "/aggregation"
    config: dict[str, Any] = Field(default_factory=dict)
    config_pointer: str = "/aggregation_config"
    stated: bool = Field(default=False, description="Whether the user wrote the name.")


class MechanismSpec(BaseModel):
    """A privacy mechanism, and the fields that its two halves share."""

    name: str
    config: dict[str, Any] = Field(default_factory=dict)

    @property
    def pointer(self) -> str:
        """Where the user wrote it."""
        return f"/privacy-mechanisms/{self.name}"


class TrainingSpec(BaseModel):
    """One training process. ``folder`` is the training's own: checkpoint and Flower's files."""

    model_config = ConfigDict(extra="forbid")

    training_id: str
    federation: FederationName = "flower-grpc"
    host: str = "127.0.0.1"
    port: int = Field(gt=0, lt=65536)
    tls: Tls | None = None
    plan: Plan = Plan()
    aggregation: AggregationSpec = AggregationSpec()
    mechanisms: list[MechanismSpec] = Field(default_factory=list)
    fit_config: dict[str, bool | int | float | str] = Field(default_factory=dict)
    initial: Path | None = Field(default=None, description="safetensors with the initial parameters.")
    reported: int = Field(default=0, description="The round that this process's forerunner told of last.")
    folder: Path
