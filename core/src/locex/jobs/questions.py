"""What a service asks an inspect process (`locex.worker.inspect`), and the answer about a job's formats."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter

from locex.schemas.data_format import DataFormat
from locex.schemas.job import DataChoice, JobConfiguration
from locex.schemas.model import ModelMetadata


class FormatQuestion(BaseModel):
    """How the data of a source look."""

    kind: Literal["format"] = "format"
    data: DataChoice


class ExamplesQuestion(BaseModel):
    """How many training examples a source has."""

    kind: Literal["examples"] = "examples"
    data: DataChoice
    seed: int


class Examples(BaseModel):
    """The answer to `ExamplesQuestion`."""

    train: int


class Model(BaseModel):
    """A model whose bytes are on this machine."""

    path: str
    digest: str
    metadata: ModelMetadata


class CheckQuestion(BaseModel):
    """Whether source, pipelines and model of a job go together; without a model only the first two."""

    kind: Literal["check"] = "check"
    job: JobConfiguration
    model: Model | None = None
    declared: DataFormat | None = None
    """What the site's model.json says."""
    models: dict[str, list[str]] = {}
    """The versions of the node's models, by name."""


Question = FormatQuestion | ExamplesQuestion | CheckQuestion
_QUESTION: TypeAdapter[Question] = TypeAdapter(Annotated[Question, Field(discriminator="kind")])


def question_of(content: dict[str, Any]) -> Question:
    """Rebuild a question that a service sent."""
    return _QUESTION.validate_python(content)


class FormatStep(BaseModel):
    """The format after one step."""

    step: str = Field(description="The step's id; source at the beginning.")
    format: DataFormat = Field(description="The format of the data after it.")


class Tensor(BaseModel):
    """One tensor of a model, without the axis of examples."""

    size: list[int | None] = Field(description="Sizes of the axes; null: any.")
    dtype: str = Field(description="NumPy name of the element type.")


class Signature(BaseModel):
    """What a model takes and gives; a part that its artefact does not tell is null and is not compared."""

    input: Tensor | None = Field(default=None, description="What it takes.")
    output: Tensor | None = Field(default=None, description="What it gives.")


class FormatVerdict(BaseModel):
    """Whether data, pipelines and model go together, and the way of the format."""

    fits: bool = Field(description="Whether a job of this configuration would pass the check of formats.")
    differences: list[str] = Field(description="Everything that does not fit; empty where fits is true.")
    train: list[FormatStep] = Field(description="The format at the source and after every step for training data.")
    test: list[FormatStep] = Field(description="Likewise for test data; steps that draw are left out there.")
    model: Signature | None = Field(
        default=None, description="What the model takes and gives; null without a model, or where the pipelines fail."
    )
    warnings: list[str] = Field(default_factory=list, description="What was ignored, and what the builder told.")
