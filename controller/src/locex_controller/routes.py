"""The paths about trainings."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from locex.errors import ActiveJob, InvalidConfiguration, UnknownJob, UnknownModel, UnknownPlugin
from locex.schemas.base import Configuration
from locex.web.routes import Routes, Scope
from locex_controller.answers import TrainingReport, TrainingStatus, report_of, status_of
from locex_controller.collector import Collector, TooManyTrainings
from locex_controller.document import TRAINING

COLLECTOR: web.AppKey[Collector] = web.AppKey("collector", Collector)

routes = Routes()


class JobsQuery(Configuration):
    """Which trainings are listed."""

    offset: Annotated[int, Field(ge=0, lt=2**31)] = 0
    limit: Annotated[int, Field(gt=0, le=1000)] = 100


@routes.post(
    "/job/config/{training_id}/",
    tag="trainings",
    scope=Scope.RUN,
    body=dict,
    body_schema=TRAINING,
    response=TrainingReport,
    errors=(InvalidConfiguration, ActiveJob, UnknownPlugin, TooManyTrainings),
)
async def start(request: web.Request, training_id: str, body: dict[str, Any]) -> TrainingReport:
    """Start a training; the answer comes when its server listens for nodes."""
    await request.app[COLLECTOR].start(training_id, body)
    return await _report(request, training_id)


@routes.get("/job/status/{training_id}", tag="trainings", response=TrainingStatus)
async def status(request: web.Request, training_id: str) -> TrainingStatus:
    """Return a training in short; INACTIVE if there is none."""
    collector = request.app[COLLECTOR]
    try:
        record = await collector.records.latest(training_id)
    except UnknownJob:
        return TrainingStatus(status="INACTIVE")
    return status_of(record, collector.pid(training_id))


@routes.get("/jobs", tag="trainings", query=JobsQuery, response=dict[str, Any])
async def list_trainings(request: web.Request, query: JobsQuery) -> dict[str, Any]:
    """List runs, newest first."""
    page = await request.app[COLLECTOR].store.list_jobs(offset=query.offset, limit=query.limit)
    jobs = [{"training_id": record.training_id, **status_of(record, None).model_dump()} for record in page.records]
    return {"jobs": jobs, "total": page.total}


@routes.get("/job/{training_id}", tag="trainings", response=TrainingReport, errors=(UnknownJob,))
async def get_training(request: web.Request, training_id: str) -> TrainingReport:
    """Return a training in full: rounds with metrics, participants and failures."""
    return await _report(request, training_id)


@routes.delete("/job/{training_id}", tag="trainings", scope=Scope.RUN, response=TrainingStatus, errors=(UnknownJob,))
async def delete_training(request: web.Request, training_id: str) -> TrainingStatus:
    """Stop a training; one that is over stays as it is."""
    return await _stop(request, training_id)


@routes.post("/job/stop/{training_id}", tag="trainings", scope=Scope.RUN, response=TrainingStatus, errors=(UnknownJob,))
async def stop_training(request: web.Request, training_id: str) -> TrainingStatus:
    """Stop a training; one that is over stays as it is."""
    return await _stop(request, training_id)


@routes.get(
    "/job/{training_id}/model",
    tag="trainings",
    produces="application/octet-stream",
    errors=(UnknownJob, UnknownModel),
)
async def get_weights(request: web.Request, training_id: str) -> web.FileResponse:
    """Return the newest global weights as safetensors; the metadata holds the round and the tensors' order."""
    collector = request.app[COLLECTOR]
    path = collector.weights(await collector.records.latest(training_id))
    headers = {"Content-Disposition": f'attachment; filename="{training_id}.safetensors"'}
    return web.FileResponse(path, headers={**headers, "Content-Type": "application/octet-stream"})


async def _stop(request: web.Request, training_id: str) -> TrainingStatus:
    return status_of(await request.app[COLLECTOR].stop(training_id), None)


async def _report(request: web.Request, training_id: str) -> TrainingReport:
    collector = request.app[COLLECTOR]
    record = await collector.records.latest(training_id)
    events = await collector.records.events(record.run_id, {"round", "attempt"})
    contents: dict[str, list[dict[str, Any]]] = {"round": [], "attempt": []}
    for event in events:
        contents[event.kind].append(event.content)
    return report_of(record, collector.pid(training_id), contents["round"], contents["attempt"])
