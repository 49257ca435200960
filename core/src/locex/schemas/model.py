"""A model's metadata, as the FL Repository and ``POST /model/`` know it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""A name that can stand in a path: letters, digits, dot, dash, underscore."""


class ModelMeta(BaseModel):
    """What the model is made with."""

    model_config = ConfigDict(extra="allow")

    library: Name = Field(description="The builder that trains it: a name of the group locex.builder, e.g. pytorch.")
    description: str = Field(default="", description="For people.")


class ModelMetadata(BaseModel):
    """A model by name and version. Its bytes arrive by ``PUT /model/{name}/{version}``."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model_name: Name = Field(description="The name that jobs use.")
    model_version: Name = Field(description="The version that jobs use.")
    model_id: str | None = Field(default=None, description="An id of the FL Repository's; kept as it is.")
    meta: ModelMeta = Field(description="What the model is made with.")


class StoredModel(ModelMetadata):
    """A model as a store keeps it."""

    digest: str | None = Field(default=None, description="sha256 of the artefact's bytes; null until it arrives.")
    size: int = Field(default=0, description="Bytes of the artefact.")
    created: float = Field(description="Seconds since the epoch.")
    updated: float = Field(description="Seconds since the epoch.")
    lineage: dict[str, Any] = Field(
        default_factory=dict, description="training_id, run_id, round, metrics, epsilon, pipeline."
    )
