"""Jobs: posted, watched, stopped; their model."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, Field

from locex.errors import (
    ActiveJob,
    DataUnavailable,
    InvalidConfiguration,
    PolicyRefused,
    PrivacyRefused,
    QueueFull,
    RepositoryUnavailable,
    ServerRefused,
    StoreUnavailable,
    UnknownJob,
    UnknownModel,
)
from locex.schemas.base import Configuration
from locex.schemas.record import JobRecord, JobState
from locex.web.models import blob_response
from locex.web.routes import Routes, Scope
from locex.web.sse import last_event_id, stream_events
from locex_server.api.keys import JOBS
from locex_server.api.plugin_errors import PLUGIN_ERRORS


class JobAccepted(BaseModel):
    """A job that was taken."""

    training_id: str = Field(description="The training.")
    run_id: str = Field(description="This run of it.")
    configuration: dict[str, Any] = Field(description="The configuration as it is understood, with all defaults.")
    warnings: list[str] = Field(description="What was ignored or assumed.")


class JobBrief(BaseModel):
    """Where an active job stands."""

    state: JobState = Field(description="The job's state.")
    round: int = Field(description="Rounds completed.")
    rounds: int | None = Field(description="Rounds expected, where known.")
    run_id: str = Field(description="The run.")


class JobQuery(Configuration):
    """Which runs, and which of them."""

    state: list[JobState] = Field(default=[], description="Only runs in these states.")
    training_id: str | None = Field(default=None, description="Only runs of this training.")
    offset: Annotated[int, Field(ge=0, lt=2**31)] = Field(default=0, description="Runs to pass over.")
    limit: Annotated[int, Field(ge=1, le=1000)] = Field(default=100, description="The most runs to return.")


class JobPage(BaseModel):
    """Some runs, newest first."""

    jobs: list[JobRecord] = Field(description="The runs.")
    total: int = Field(description="How many there are in all.")


routes = Routes()


@routes.post(
    "/job/config/{training_id}/",
    tag="jobs",
    scope=Scope.RUN,
    body=dict,
    body_schema={"$ref": "#/components/schemas/JobConfiguration"},
    response=JobAccepted,
    statuses={"model-unknown": 422},
    errors=(
        InvalidConfiguration,
        UnknownModel,
        *PLUGIN_ERRORS,
        ServerRefused,
        PolicyRefused,
        PrivacyRefused,
        DataUnavailable,
        ActiveJob,
        QueueFull,
        RepositoryUnavailable,
        StoreUnavailable,
    ),
)
async def configure_job(request: web.Request, training_id: str, body: dict[str, Any]) -> JobAccepted:
    """Start a training.

    The answer comes when the plugins that the job names are loaded and took their configuration; everything after
    that shows in the job's record and events.
    """
    accepted = await request.app[JOBS].submit(training_id, body)
    return JobAccepted(
        training_id=training_id,
        run_id=accepted.record.run_id,
        configuration=accepted.record.configuration,
        warnings=accepted.warnings,
    )


@routes.get("/job/status", tag="jobs", response=dict[str, JobBrief], errors=(StoreUnavailable,))
async def get_status(request: web.Request) -> dict[str, JobBrief]:
    """Get the statuses of the current jobs, by training id."""
    return {
        record.training_id: JobBrief.model_validate(record, from_attributes=True)
        for record in await request.app[JOBS].active()
    }


@routes.get("/job/total", tag="jobs", response=int, errors=(StoreUnavailable,))
async def get_total(request: web.Request) -> int:
    """Get the number of currently running jobs."""
    return len(await request.app[JOBS].active())


@routes.get("/jobs", tag="jobs", query=JobQuery, response=JobPage, errors=(StoreUnavailable,))
async def list_jobs(request: web.Request, query: JobQuery) -> JobPage:
    """Return runs, newest first."""
    page = await request.app[JOBS].page(
        states=tuple(query.state), training_id=query.training_id, offset=query.offset, limit=query.limit
    )
    return JobPage(jobs=page.records, total=page.total)


@routes.get("/job/{training_id}", tag="jobs", response=JobRecord, errors=(UnknownJob, StoreUnavailable))
async def get_job(request: web.Request, training_id: str) -> JobRecord:
    """Return the newest run of a training: state, rounds with their metrics, warnings, failure."""
    return await request.app[JOBS].latest(training_id)


@routes.delete(
    "/job/{training_id}", tag="jobs", scope=Scope.RUN, response=JobRecord, errors=(UnknownJob, StoreUnavailable)
)
async def stop_job(request: web.Request, training_id: str) -> JobRecord:
    """Stop a job; one that is over stays as it is."""
    return await request.app[JOBS].stop(training_id)


@routes.get(
    "/job/{training_id}/events", tag="jobs", produces="text/event-stream", errors=(UnknownJob, StoreUnavailable)
)
async def get_job_events(request: web.Request, training_id: str) -> web.StreamResponse:
    """Follow the newest run as server-sent events; `Last-Event-ID` resumes."""
    after = last_event_id(request)
    record = await request.app[JOBS].latest(training_id)
    return await stream_events(request, request.app[JOBS].follow(record.run_id, after=after))


@routes.get(
    "/job/{training_id}/model",
    tag="jobs",
    produces="application/octet-stream",
    errors=(UnknownJob, UnknownModel, StoreUnavailable),
)
async def get_job_model(request: web.Request, training_id: str) -> web.StreamResponse:
    """Return the bytes of the newest run's final model."""
    record = await request.app[JOBS].latest(training_id)
    if record.model is None:
        raise UnknownModel(training_id, record.run_id, f"the job, which is {record.state.value}")
    return await blob_response(request, record.model["digest"], next(iter(record.model["files"])))
