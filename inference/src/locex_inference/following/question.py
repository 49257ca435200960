"""What the guard asks its evaluation process (`locex_inference.following.evaluation`)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from locex.schemas.model import ModelMetadata


class Subject(BaseModel):
    """A version to evaluate: its file, and the inferencer that loads it."""

    path: str
    digest: str
    metadata: ModelMetadata
    inferencer: str
    fields: dict[str, Any] = {}


class Question(BaseModel):
    """What to evaluate. ``configuration`` is that of the job that trained the candidate; without it, the site's."""

    candidate: Subject
    served: Subject | None = None
    configuration: dict[str, Any] | None = None
    examples: int
    memory_mb: int
    threads: int = 1
    allow_programs: bool = True
    data: bool = True
