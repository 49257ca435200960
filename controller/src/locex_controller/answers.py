"""What the REST API answers about trainings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from locex.schemas.record import Failure, JobRecord, JobState

_STATUS = {JobState.QUEUED: "WAITING", JobState.CONFIGURING: "WAITING", JobState.PREPARING: "WAITING"}
_STATUS[JobState.EVALUATING] = "TRAINING"


class TrainingStatus(BaseModel):
    """A training in short; ``status``, ``round`` and ``id`` are the older Training Collector's."""

    status: str = Field(description="INACTIVE, WAITING, TRAINING, INTERRUPTED, FINISHED, FAILED or STOPPED.")
    round: int = Field(default=0, description="Rounds completed.")
    id: int | None = Field(default=None, description="The training's process.")
    rounds: int | None = Field(default=None, description="Rounds in all.")
    run_id: str | None = Field(default=None, description="This run of the training.")
    address: str | None = Field(default=None, description="Where nodes join.")


class RoundReport(BaseModel):
    """One round as the collector saw it."""

    round: int = Field(description="The round, from 1.")
    attempt: int = Field(default=1, description="The attempt that succeeded.")
    participants: list[str] = Field(default_factory=list, description="Nodes whose contributions were aggregated.")
    clients: dict[str, str] = Field(default_factory=dict, description="The client_type_id of nodes that told it.")
    failures: dict[str, str] = Field(default_factory=dict, description="Why nodes failed, by node.")
    examples: int = Field(default=0, description="Examples that the participants named.")
    train: dict[str, float] = Field(default_factory=dict, description="Averages over the participants.")
    evaluation: dict[str, float] = Field(default_factory=dict, description="Averages over the nodes that evaluated.")
    evaluation_failures: dict[str, str] = Field(default_factory=dict, description="Why nodes did not evaluate.")
    fit_seconds: float | None = Field(default=None, description="Duration of training and aggregation.")
    evaluate_seconds: float | None = Field(default=None, description="Duration of evaluation.")


class FailedAttempt(BaseModel):
    """An attempt at a round that did not count."""

    round: int = Field(description="The round.")
    attempt: int = Field(description="The attempt, from 1.")
    reason: str = Field(description="Why it did not count.")
    failures: dict[str, str] = Field(default_factory=dict, description="Why nodes failed, by node.")


class TrainingReport(TrainingStatus):
    """A training in full."""

    training_id: str = Field(description="The training.")
    state: JobState = Field(description="The exact state.")
    created: float = Field(description="Seconds since the epoch.")
    updated: float = Field(description="Seconds since the epoch.")
    ended: float | None = Field(default=None, description="Seconds since the epoch.")
    resumes: int = Field(default=0, description="How often it went on after its process died.")
    configuration: dict[str, Any] = Field(description="The normalised request.")
    warnings: list[str] = Field(default_factory=list, description="What was ignored or is to be known.")
    history: list[RoundReport] = Field(default_factory=list, description="Rounds, in order.")
    attempts: list[FailedAttempt] = Field(default_factory=list, description="Attempts that did not count.")
    failure: Failure | None = Field(default=None, description="Why it failed.")


def status_of(record: JobRecord, pid: int | None) -> TrainingStatus:
    """Return a training in short."""
    return TrainingStatus(**_common(record, pid))


def report_of(
    record: JobRecord, pid: int | None, rounds: list[dict[str, Any]], attempts: list[dict[str, Any]]
) -> TrainingReport:
    """Return a training in full; ``rounds`` and ``attempts`` are the contents of its events."""
    fields = {"training_id", "state", "created", "updated", "ended", "resumes", "configuration", "warnings", "failure"}
    return TrainingReport(
        **_common(record, pid),
        **record.model_dump(include=fields),
        history=[RoundReport.model_validate(one) for one in rounds],
        attempts=[FailedAttempt.model_validate(one) for one in attempts],
    )


def _common(record: JobRecord, pid: int | None) -> dict[str, Any]:
    return {
        "status": _STATUS.get(record.state, record.state.value),
        "round": record.round,
        "id": pid,
        "rounds": record.rounds,
        "run_id": record.run_id,
        "address": record.configuration.get("address"),
    }
