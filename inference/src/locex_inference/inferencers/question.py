"""What is to be loaded: the same words for the service's own process and for one of the model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from locex.api import ModelArtefact
from locex.pipelines.saved import SavedPipeline
from locex.schemas.model import ModelMetadata
from locex_inference.models.options import ModelOptions


class Question(BaseModel):
    """One version of a model, and the conditions under which it is loaded."""

    artefact: Path = Field(description="The model's file.")
    digest: str = Field(description="Its sha256.")
    name: str = Field(description="The model's name.")
    version: str = Field(description="Its version.")
    library: str = Field(default="", description="What its metadata say that it is made with.")
    options: ModelOptions = Field(default_factory=ModelOptions, description="How it is served.")
    pipeline: SavedPipeline | None = Field(default=None, description="What stood before it in training.")
    threads: int = Field(default=1, description="Threads of one call.")
    allow_programs: bool = Field(default=True, description="Whether artefacts that are programs are taken.")
    memory_mb: int | None = Field(default=None, description="Memory of its process, in MiB.")
    nice: int = Field(default=0, description="How far its process gives way to others.")
    buffers: list[tuple[int, int]] = Field(default=[], description="Shared memory for inputs and outputs, by call.")

    def model_artefact(self) -> ModelArtefact:
        """Return the artefact as inferencers take it."""
        metadata: dict[str, Any] = {
            "model_name": self.name,
            "model_version": self.version,
            "meta": {"library": self.library or "unknown"},
        }
        return ModelArtefact(self.artefact, ModelMetadata.model_validate(metadata), self.digest)
