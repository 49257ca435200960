"""What an operator may say of one model: ``model.json`` beside its versions, or the load request's ``config``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, PositiveInt, model_validator

from locex.schemas.base import Configuration
from locex.schemas.data_format import SideFormat
from locex.schemas.model import Name

Weight = Annotated[float, Field(ge=0, le=1)]


class Step(Configuration):
    """One step of a pipeline, as the ConfigMap files write it."""

    id: Name = Field(description="A name of the group locex.transform.")
    parameters: dict[str, Any] = Field(
        default={}, validation_alias=AliasChoices("parameters", "params"), description="The step's own fields."
    )
    tensor: str | None = Field(
        default=None, description="The input, or output, that the step acts on; absent: the model's only one."
    )


class ModelOptions(Configuration):
    """How one model is loaded and served."""

    max_batch_size: int = Field(default=0, ge=0, description="Most examples of one request; 0: 4096.")
    micro_batching: Literal["auto", "on", "off"] = Field(
        default="auto", description="Join waiting requests into one call; auto: where a probe at load shows a gain."
    )
    concurrency: PositiveInt | None = Field(default=None, description="Calls that run at once; absent: the threads'.")
    queue_limit: PositiveInt = Field(default=1024, description="Requests that may wait; one more is refused.")
    timeout: float | None = Field(default=None, gt=0, description="Seconds a request may take; absent: no limit.")
    threads: PositiveInt | None = Field(default=None, description="Threads of one call; absent: the service's.")
    nan: Literal["accept", "refuse"] = Field(default="accept", description="Whether inputs may hold NaN or infinity.")
    warmup: list[PositiveInt] = Field(
        default=[1, 2, 4, 8, 16, 32], description="Batch sizes that are run, and timed, before a version is served."
    )
    warmup_size: PositiveInt = Field(default=16, description="Size of free axes, but the first, in warm-up samples.")
    inferencer: Name | None = Field(default=None, description="A name of locex.inferencer; absent: by the artefact.")
    fields: dict[str, Any] = Field(default={}, description="The inferencer's own fields.")
    isolate: bool = Field(default=False, description="Run the model in a process of its own, whatever it is.")
    memory_mb: PositiveInt | None = Field(default=None, description="Memory of that process, in MiB.")
    preprocessing: list[Step] | None = Field(default=None, description="Steps before the model.")
    postprocessing: list[Step] | None = Field(default=None, description="Steps after the model.")
    pipeline: Literal["training"] | None = Field(
        default=None, description="training: preprocess as the training did, with what its steps had learnt."
    )
    format: SideFormat | None = Field(default=None, description="What callers send, for the pipelines' format walk.")
    tolerance: float = Field(default=1e-3, gt=0, description="Allowed difference from golden outputs: |a-b|/(1+|b|).")
    labels: dict[Name, Name] = Field(default={}, description="Further names of versions.")
    canary: dict[Name, Weight] = Field(
        default={}, description="Parts of the requests without a version that go to these, not to the stable one."
    )
    promote: bool = Field(default=True, description="Whether a newly loaded version becomes stable at once.")
    keep: PositiveInt = Field(default=2, description="Newest versions that stay loaded; named ones always do.")

    @model_validator(mode="after")
    def _parts_of_one(self) -> Self:
        """Refuse weights that are more than everything."""
        if sum(self.canary.values()) > 1:
            raise ValueError("the canary's parts are more than 1 in all")
        if self.pipeline and self.preprocessing is not None:
            raise ValueError("pipeline and preprocessing exclude each other")
        return self
