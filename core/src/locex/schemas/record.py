"""What a node remembers of a job."""

from __future__ import annotations

from enum import Enum
from typing import Any

from pydantic import BaseModel, Field


class JobState(str, Enum):
    """The states of a job; `locex.jobs.states` holds the allowed transitions."""

    QUEUED = "QUEUED"
    CONFIGURING = "CONFIGURING"
    PREPARING = "PREPARING"
    WAITING = "WAITING"
    TRAINING = "TRAINING"
    EVALUATING = "EVALUATING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    INTERRUPTED = "INTERRUPTED"

    @property
    def over(self) -> bool:
        """Whether nothing more happens to the job."""
        return self in {JobState.FINISHED, JobState.FAILED, JobState.STOPPED}


class FailureKind(str, Enum):
    """What kind of end a failed job had; docs/errors.md explains each."""

    CANNOT_LOAD = "cannot load"
    RAISED = "raised"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out of memory"
    TIMED_OUT = "timed out"
    FEDERATION_LOST = "federation lost"

    @property
    def code(self) -> str:
        """The error code of a failure that has none of its own."""
        return self.value.replace(" ", "-")


class Failure(BaseModel):
    """Why a job failed."""

    kind: FailureKind = Field(description="What kind of end it was.")
    code: str = Field(description="The stable error code, where there is one.")
    message: str = Field(description="What is wrong.")
    remedy: str = Field(default="", description="What to do about it.")
    exit_code: int | None = Field(default=None, description="Exit code of the worker; negative: ended by that signal.")
    log: str = Field(default="", description="Last lines that the worker wrote to its standard error.")


class RoundRecord(BaseModel):
    """One round at this node."""

    round: int = Field(description="The server's number of the round, from 1.")
    examples: int | None = Field(default=None, description="Training examples.")
    fit_seconds: float | None = Field(default=None, description="Duration of training, in seconds.")
    evaluate_seconds: float | None = Field(default=None, description="Duration of evaluation, in seconds.")
    train: dict[str, float] = Field(default_factory=dict, description="Loss and metrics on training data.")
    evaluation: dict[str, float] = Field(default_factory=dict, description="Loss and metrics of the global model.")
    epsilon: dict[str, float] = Field(default_factory=dict, description="Privacy spent so far, by unit of privacy.")


class JobRecord(BaseModel):
    """One run of a training at this node."""

    version: int = Field(default=1, description="Version of this record's layout.")
    run_id: str = Field(description="This run; a training posted again has another.")
    training_id: str = Field(description="The training, as callers name it.")
    client_type_id: str | None = Field(default=None, description="This client, as its job names it.")
    state: JobState = Field(description="Where the run stands.")
    round: int = Field(default=0, description="Rounds completed.")
    rounds: int | None = Field(default=None, description="Rounds expected, where known.")
    created: float = Field(description="Seconds since the epoch.")
    updated: float = Field(description="Seconds since the epoch.")
    started: float | None = Field(default=None, description="When its worker began, seconds since the epoch.")
    ended: float | None = Field(default=None, description="Seconds since the epoch.")
    configuration: dict[str, Any] = Field(description="The normalised configuration.")
    library: str = Field(description="The builder, from the model's metadata.")
    plugins: dict[str, str] = Field(default_factory=dict, description="Distributions in use, with their versions.")
    warnings: list[str] = Field(default_factory=list, description="What was ignored or is to be known.")
    history: list[RoundRecord] = Field(default_factory=list, description="Rounds, in order.")
    deaths: int = Field(default=0, description="Ends of its worker that nobody asked for, since its last round.")
    resumes: int = Field(default=0, description="How often the run went on after an interruption.")
    artefact: str | None = Field(default=None, description="sha256 of the model's bytes that the run began with.")
    failure: Failure | None = Field(default=None, description="Why it failed.")
    model: dict[str, Any] | None = Field(default=None, description="The final model: name, version, digest, files.")
    worker: dict[str, Any] | None = Field(default=None, description="The worker's process: pid and start time.")


class JobEvent(BaseModel):
    """Something that happened to a run."""

    id: int = Field(description="Rises by one within a run; Last-Event-ID resumes after it.")
    run_id: str = Field(description="The run.")
    time: float = Field(description="Seconds since the epoch.")
    kind: str = Field(description="state, worker, model, round or warning.")
    content: dict[str, Any] = Field(default_factory=dict, description="Depends on the kind.")
