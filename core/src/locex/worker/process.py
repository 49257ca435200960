"""One worker's life: ready, configured, prepared, taking part, finished. Readable from top to bottom."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from locex.api import FederationContext, ModelArtefact, PrivacyContext, Stopped, TrainingSession
from locex.errors import BrokenPlugin, FederationLost, FormatMismatch, LocexError
from locex.jobs.messages import (
    Begin,
    Configure,
    Configured,
    Failed,
    Finished,
    LedgerAnswer,
    Left,
    Ready,
    Refused,
    RoundModel,
)
from locex.jobs.policy import policy_of, require_examples
from locex.pipelines.saved import SavedPipeline
from locex.pipelines.trail import mismatch
from locex.plugins.catalog import Catalog, read_catalog
from locex.processes.memory import hard_limit
from locex.schemas.record import FailureKind
from locex.settings import PluginSettings, SiteSettings
from locex.worker import data
from locex.worker.building import build
from locex.worker.checkpoint import Checkpoint
from locex.worker.inbox import Inbox
from locex.worker.ledger import ServiceLedger
from locex.worker.participant import NodeParticipant
from locex.worker.plan import Plan, make_plan
from locex.worker.preparation import Surroundings

log = logging.getLogger(__name__)
_REMEDIES = {FailureKind.OUT_OF_MEMORY: "raise resources.memory_mb or LOCEX_WORKER_MEMORY_MB, or use less"}


def work(inbox: Inbox) -> None:
    """Do one job, from its configuration to its end, and tell the service how it ended."""
    inbox.send(Ready())
    plan = _configure(inbox)
    if plan is None:
        return
    begin = inbox.next(Begin)
    inbox.beat()
    try:
        ended_early, files, pipeline = _train(inbox, plan, begin)
        inbox.send(Finished(files=[str(path) for path in files], ended_early=ended_early, pipeline=pipeline))
    except Stopped:
        inbox.send(Left())
    except BaseException as error:
        log.exception("the job failed")
        inbox.send(_failed(error))


def _configure(inbox: Inbox) -> Plan | None:
    request, site = inbox.next(Configure), SiteSettings()
    try:
        with hard_limit(site.plugin_memory_mb):
            plan = make_plan(request.job, request.library, _catalog(), site)
    except LocexError as error:
        inbox.send(Refused(error=error.to_json()))
        return None
    inbox.send(Configured(job=plan.job, plugins=plan.distributions(), warnings=plan.warnings))
    return plan


def _train(inbox: Inbox, plan: Plan, begin: Begin) -> tuple[bool, list[Path], dict[str, Any] | None]:
    site, folder = SiteSettings(), Path(begin.folder)
    # The same after a restart of the worker; of the run's id where the job has none.
    seed = plan.job.seed if plan.job.seed is not None else zlib.crc32(begin.run_id.encode())
    prepared = data.prepare(plan, site, _surroundings(inbox, begin))
    require_examples(len(prepared.data.train), policy_of(site), site.dataset)
    limits = [limit for limit in (plan.job.resources.memory_mb, site.worker_memory_mb) if limit]
    try:
        with hard_limit(min(limits, default=None)):
            session = _build(plan, begin, prepared, seed, inbox, site)
    except FormatMismatch as error:
        raise mismatch(error.message, prepared.trail) from error
    data.verify(plan, site, prepared, session.signature)

    pipeline = _pipeline(inbox, prepared)
    keep = _keeps_rounds(plan, session, folder, inbox, pipeline)
    participant = _participant(plan, session, folder, inbox, site, keep, prepared.learned)
    if begin.resume and not participant.resume():
        inbox.warn("no checkpoint was found: optimizer and scheduler begin anew")
    _federate(plan, participant, folder, site)

    export = plan.job.export
    (folder / "model").mkdir(exist_ok=True)
    if not participant.holds_global and plan.in_order("privacy"):
        # What no mechanism has seen must not lie where a later job could send it: as its initial weights, say.
        session.set_parameters(participant.global_parameters)
        inbox.warn("the server sent no weights after the last fit: the model is the last global one")
    elif not participant.holds_global:
        inbox.warn("the server sent no weights after the last fit: the model is this node's own")
    files = session.export(folder / "model", export.formats)
    return participant.ended_early, files, pipeline


def _pipeline(inbox: Inbox, prepared: data.Prepared) -> dict[str, Any] | None:
    """Return the test pipeline with what its steps learnt; a warning where it cannot be kept with the model."""
    try:
        return SavedPipeline.of(prepared.steps, prepared.trail[0][1]).model_dump(mode="json", exclude_none=True)
    except LocexError as error:
        inbox.warn(f"the pipeline is not kept with the model, which cannot be served by it: {error.message}")
        return None


def _build(
    plan: Plan, begin: Begin, prepared: data.Prepared, seed: int, inbox: Inbox, site: SiteSettings
) -> TrainingSession:
    return build(
        plan,
        site,
        _catalog(),
        ModelArtefact(Path(begin.artefact), begin.metadata, begin.digest),
        prepared.data,
        seed=seed,
        should_stop=inbox.stopping,
        warn=inbox.warn,
    )


def _surroundings(inbox: Inbox, begin: Begin) -> Surroundings:
    return Surroundings(
        folder=Path(begin.folder),
        models=begin.models,
        should_stop=inbox.stopping,
        warn=inbox.warn,
    )


def _catalog() -> Catalog:
    settings = PluginSettings()
    return read_catalog(settings.policy, settings.plugin_folders)


def _participant(
    plan: Plan,
    session: TrainingSession,
    folder: Path,
    inbox: Inbox,
    site: SiteSettings,
    keep_global: Callable[[int], None],
    learned: Sequence[str],
) -> NodeParticipant:
    def ask(message: object) -> LedgerAnswer:
        inbox.send(message)  # type: ignore[arg-type]
        return inbox.next(LedgerAnswer)

    context = PrivacyContext(
        dataset=site.dataset,
        ledger=lambda unit: ServiceLedger(site.dataset, unit, ask),
        epsilon_spent=lambda unit, epsilon: participant.epsilon_spent(unit, epsilon),  # noqa: PLW0108 -- made below
        trainings=plan.job.config,
        rounds=plan.job.num_rounds,
        learned=learned,
    )
    mechanisms = [plan.host.privacy(plugin, context) for plugin in plan.in_order("privacy")]
    for mechanism in sorted(mechanisms, key=lambda one: one.stage):
        mechanism.requires(plan.plugins["federation"].loaded.entry.name)
        mechanism.prepare(session)
    participant = NodeParticipant(
        job=plan.job,
        session=session,
        mechanisms=mechanisms,
        checkpoint=Checkpoint(folder / "checkpoint"),
        send=inbox.send,
        should_stop=inbox.stopping,
        max_norm=site.max_update_norm,
        keep_global=keep_global,
    )
    return participant


def _keeps_rounds(
    plan: Plan, session: TrainingSession, folder: Path, inbox: Inbox, pipeline: dict[str, Any] | None
) -> Callable[[int], None]:
    """Return what hands the model of each round to the service, where the job asks for it."""

    def keep(server_round: int) -> None:
        place = folder / "rounds" / str(server_round)
        place.mkdir(parents=True, exist_ok=True)
        try:
            files = session.export(place, plan.job.export.formats)
        except OSError as error:
            inbox.warn(f"the model of round {server_round} was not kept: {error}")
        else:
            inbox.send(RoundModel(round=server_round, files=[str(path) for path in files], pipeline=pipeline))

    return keep if plan.job.export.each_round else lambda _: None


def _federate(plan: Plan, participant: NodeParticipant, folder: Path, site: SiteSettings) -> None:
    (folder / "federation").mkdir(exist_ok=True)
    context = FederationContext(
        server_address=plan.job.server_address,
        folder=folder / "federation",
        root_certificates=site.root_certificates,
        insecure=site.root_certificates is None,
        patience=site.patience,
        mechanisms=participant.mechanisms,
    )
    participant.waiting("connecting")
    plan.host.federation(plan.plugins["federation"], context).run(participant)


def _failed(error: BaseException) -> Failed:
    if isinstance(error, MemoryError):
        kind = FailureKind.OUT_OF_MEMORY
    elif isinstance(error, FederationLost):
        kind = FailureKind.FEDERATION_LOST
    elif isinstance(error, BrokenPlugin | ImportError):
        kind = FailureKind.CANNOT_LOAD
    else:
        kind = FailureKind.RAISED
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    told = error if isinstance(error, LocexError) else LocexError(text, code=kind.code, remedy=_REMEDIES.get(kind, ""))
    return Failed(failure=kind, error=told.to_json())
