"""The Training Collector: starts, watches, resumes and stops trainings."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

from locex.errors import ActiveJob, LocexError, UnknownModel
from locex.processes.child import reap
from locex.schemas.model import StoredModel
from locex.schemas.record import JobRecord, JobState
from locex.store.protocol import Store
from locex_controller.initial import WEIGHTS, extract_weights
from locex_controller.records import Records, failure_of
from locex_controller.request import TrainingRequest, parse_request
from locex_controller.settings import CollectorSettings
from locex_controller.supervisor import Supervisor
from locex_controller.training.checkpoint_file import CHECKPOINT
from locex_controller.training.port import PortInUse, is_free
from locex_controller.training.spec import Tls, TrainingSpec


class TooManyTrainings(LocexError):
    """As many trainings run as may run."""

    code = "queue-full"

    def __init__(self, limit: int) -> None:
        """``limit``: the setting."""
        super().__init__(
            f"{limit} trainings run already",
            remedy="post it again when one is over, stop one, or raise LOCEX_MAX_TRAININGS",
            retry_after=30,
        )


class Collector:
    """All trainings of this service."""

    def __init__(self, settings: CollectorSettings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.records = Records(store)
        self._active: dict[str, Supervisor] = {}
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """End what a former collector left running, and go on with its trainings."""
        for record in await self.records.unfinished():
            if record.worker:
                reap(int(record.worker["pid"]), record.worker["identity"])
            try:
                spec = TrainingSpec.model_validate_json(self._spec_file(record.run_id).read_bytes())
            except (OSError, ValueError) as error:
                failure = failure_of({"code": "internal", "message": f"its folder cannot be read: {error}"})
                await self.records.enter(record, JobState.FAILED, reason=failure.message, failure=failure)
                continue
            if record.state is not JobState.INTERRUPTED:
                record = await self.records.enter(record, JobState.INTERRUPTED, reason="the collector ended")  # noqa: PLW2901 -- the newest of the same record
            record = record.model_copy(update={"resumes": record.resumes + 1})  # noqa: PLW2901 -- likewise
            self._watch(Supervisor(record, spec, self.records, self.settings))

    async def close(self) -> None:
        """End every process; the trainings go on at the next start."""
        await asyncio.gather(*(supervisor.interrupt() for supervisor in self._running()))

    async def start(self, training_id: str, content: dict[str, Any]) -> JobRecord:
        """Start a training and return its record once it listens for nodes."""
        request, warnings = parse_request(content, training_id)
        request.plan()
        async with self._lock:
            supervisor = await self._prepare(training_id, request, warnings)
            self._watch(supervisor)
        return supervisor.record

    async def stop(self, training_id: str) -> JobRecord:
        """Stop a training; one that is over stays as it is."""
        supervisor = self._active.get(training_id)
        if supervisor is not None:
            await supervisor.stop()
        return await self.records.latest(training_id)

    def pid(self, training_id: str) -> int | None:
        """Return the process of a training that runs."""
        supervisor = self._active.get(training_id)
        return supervisor.pid if supervisor else None

    def weights(self, record: JobRecord) -> Path:
        """Return the file of a run's newest global weights; raise `UnknownModel` before there are any."""
        path = self._folder(record.run_id) / CHECKPOINT
        if not path.exists():
            raise UnknownModel(record.training_id, "global", "the training's checkpoints")
        return path

    async def _prepare(self, training_id: str, request: TrainingRequest, warnings: list[str]) -> Supervisor:
        await self._settle()
        known = self._active.get(training_id)
        if known is not None and not known.record.state.over:
            raise ActiveJob(training_id, known.record.state.value)
        if len(self._running()) >= self.settings.max_trainings:
            raise TooManyTrainings(self.settings.max_trainings)
        model = await self._model(request)
        folder = self._folder(uuid.uuid4().hex)
        folder.mkdir(parents=True, mode=0o700)
        try:
            return await self._begin(training_id, request, warnings, model, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    async def _settle(self) -> None:
        """Let trainings end whose records are over: a client that has read it may start the next one at once."""
        for supervisor in self._running():
            if await self.records.is_over(supervisor.record.run_id):
                await supervisor.settle()

    async def _begin(
        self,
        training_id: str,
        request: TrainingRequest,
        warnings: list[str],
        model: StoredModel | None,
        folder: Path,
    ) -> Supervisor:
        initial = await self._initial(model, folder, warnings)
        spec = TrainingSpec(
            training_id=training_id,
            federation=request.federation,
            host=self.settings.federated_host or self.settings.host,
            port=self._port(request.port),
            tls=self._tls(),
            plan=request.plan(),
            aggregation=request.chosen_aggregation(),
            mechanisms=request.mechanisms(),
            fit_config=request.sent_to_nodes(),
            initial=initial,
            folder=folder,
        )
        self._spec_file(folder.name).write_text(spec.model_dump_json(), encoding="utf-8")
        supervisor = Supervisor(_record(request, spec, model, warnings), spec, self.records, self.settings)
        try:
            told = {"warnings": [*warnings, *await supervisor.begin()]}
            supervisor.record = supervisor.record.model_copy(update={"state": JobState.WAITING, **told})
            await self.records.create(supervisor.record)
        except BaseException:
            await supervisor.discard()
            raise
        return supervisor

    async def _model(self, request: TrainingRequest) -> StoredModel | None:
        if request.model_name is None or request.model_version is None:
            return None
        return await self.store.get_model(request.model_name, request.model_version)

    async def _initial(self, model: StoredModel | None, folder: Path, warnings: list[str]) -> Path | None:
        target = folder / WEIGHTS
        artefact = await self.store.blob_path(model.digest) if model and model.digest else None
        limit = self.settings.max_model_mb * 2**20
        if artefact is not None:
            found = await asyncio.to_thread(extract_weights, artefact, target, limit=limit)
            if found:
                return target
        warnings.append("the initial parameters are asked from a node: this collector has no weights of the model")
        return None

    def _port(self, asked: int | None) -> int:
        host = self.settings.federated_host or self.settings.host
        first = self.settings.federated_port
        last = min(first + self.settings.federated_ports, 65536)
        candidates = [asked] if asked else range(first, last)
        taken = {supervisor.spec.port for supervisor in self._running()}
        for port in candidates:
            if port not in taken and is_free(host, port):
                return port
        raise PortInUse(host, str(asked) if asked else f"{first} to {last - 1}")

    def _tls(self) -> Tls | None:
        settings = self.settings
        if settings.federated_ca and settings.federated_certificate and settings.federated_key:
            return Tls(ca=settings.federated_ca, certificate=settings.federated_certificate, key=settings.federated_key)
        return None

    def _watch(self, supervisor: Supervisor) -> None:
        self._active[supervisor.spec.training_id] = supervisor
        supervisor.watch()

    def _running(self) -> list[Supervisor]:
        return [supervisor for supervisor in self._active.values() if not supervisor.record.state.over]

    def _folder(self, run_id: str) -> Path:
        return self.settings.state_folder.absolute() / "trainings" / run_id

    def _spec_file(self, run_id: str) -> Path:
        return self._folder(run_id) / "spec.json"


def _record(request: TrainingRequest, spec: TrainingSpec, model: StoredModel | None, warnings: list[str]) -> JobRecord:
    now = time.time()
    return JobRecord(
        run_id=spec.folder.name,
        training_id=spec.training_id,
        state=JobState.CONFIGURING,
        rounds=spec.plan.num_rounds,
        created=now,
        updated=now,
        started=now,
        configuration={
            **request.model_dump(mode="json", by_alias=True, exclude_none=True),
            "address": f"{spec.host}:{spec.port}",
        },
        library=model.meta.library if model else "",
        warnings=warnings,
    )
