"""What the guard asks its evaluation process (`locex_inference.following.evaluation`)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from locex.schemas.model import ModelMetadata
from locex_inference.inferencers.question import Question


class Evaluation(BaseModel):
    """Which versions to evaluate, and on what."""

    metadata: ModelMetadata = Field(description="The candidate's.")
    candidate: Question
    served: Question | None = None
    configuration: dict[str, Any] | None = Field(
        default=None, description="That of the job that trained the candidate; absent: the site's data and pipelines."
    )
    examples: int = Field(description="Test examples, at most.")
    memory_mb: int = Field(description="Memory of loading and evaluating.")
