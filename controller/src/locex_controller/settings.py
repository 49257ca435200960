"""Settings of the Training Collector, from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from locex.settings import ServiceSettings, default_state_folder


class CollectorSettings(ServiceSettings):
    """All settings. Names without the prefix LOCEX_ are those of the older Training Collector."""

    port: int = Field(default=8000, ge=0, le=65535, validation_alias="PORT", description="Port of the REST API.")
    federated_host: str | None = Field(
        default=None, validation_alias="FEDERATED_HOST", description="Address for nodes; absent: that of the REST API."
    )
    federated_port: int = Field(
        default=8080, gt=0, le=65535, validation_alias="FEDERATED_PORT", description="First port for trainings."
    )
    federated_ports: int = Field(default=20, gt=0, description="How many ports from FEDERATED_PORT on may be taken.")
    federated_ca: Path | None = Field(default=None, description="PEM file of the CA: TLS for nodes.")
    federated_certificate: Path | None = Field(default=None, description="PEM file of the certificate for nodes.")
    federated_key: Path | None = Field(default=None, description="PEM file of its key.")
    state_folder: Path = Field(
        default_factory=lambda: default_state_folder() / "collector", description="The collector's own state."
    )
    max_trainings: int = Field(default=4, gt=0, description="Trainings that run at once.")
    max_restarts: int = Field(default=3, ge=0, description="Restarts of a training without a round in between.")
    start_timeout: float = Field(default=60, gt=0, description="Seconds in which a training must begin to listen.")

    @model_validator(mode="after")
    def _whole_tls_for_nodes(self) -> Self:
        """Refuse a part of TLS: nodes would be served in clear."""
        given = [value is not None for value in (self.federated_ca, self.federated_certificate, self.federated_key)]
        if any(given) and not all(given):
            raise ValueError("LOCEX_FEDERATED_CA, LOCEX_FEDERATED_CERTIFICATE and LOCEX_FEDERATED_KEY go together")
        return self
