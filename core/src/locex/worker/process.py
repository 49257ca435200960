"""One worker's life: ready, configured, prepared, taking part, finished. Readable from top to bottom."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from locex.api import BuildContext, FederationContext, ModelArtefact, PrivacyContext, Stopped, TrainingSession
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
    Warned,
)
from locex.plugins.catalog import Catalog, read_catalog
from locex.schemas.record import FailureKind
from locex.settings import PluginSettings, SiteSettings
from locex.worker import data
from locex.worker.checkpoint import Checkpoint
from locex.worker.inbox import Inbox
from locex.worker.ledger import ServiceLedger
from locex.worker.participant import NodeParticipant
from locex.worker.pipeline import mismatch
from locex.worker.plan import Plan, make_plan

log = logging.getLogger(__name__)


def work(inbox: Inbox) -> None:
    """Do one job, from its configuration to its end, and tell the service how it ended."""
    inbox.send(Ready())
    plan = _configure(inbox)
    if plan is None:
        return
    begin = inbox.next(Begin)
    inbox.beat()
    try:
        ended_early, files = _train(inbox, plan, begin)
        inbox.send(Finished(files=[str(path) for path in files], ended_early=ended_early))
    except Stopped:
        inbox.send(Left())
    except BaseException as error:
        log.exception("the job failed")
        inbox.send(_failed(error))


def _configure(inbox: Inbox) -> Plan | None:
    request = inbox.next(Configure)
    try:
        plan = make_plan(request.job, request.library, _catalog(), SiteSettings())
    except LocexError as error:
        inbox.send(Refused(error=error.to_json()))
        return None
    inbox.send(Configured(job=plan.job, plugins=plan.distributions(), warnings=plan.warnings))
    return plan


def _train(inbox: Inbox, plan: Plan, begin: Begin) -> tuple[bool, list[Path]]:
    site, folder = SiteSettings(), Path(begin.folder)
    # The same after a restart of the worker; of the run's id where the job has none.
    seed = plan.job.seed if plan.job.seed is not None else zlib.crc32(begin.run_id.encode())
    prepared = data.prepare(plan, site)
    try:
        session = _build(plan, begin, prepared, seed, inbox)
    except FormatMismatch as error:
        raise mismatch(error.message, prepared.trail) from error
    data.verify(plan, site, prepared, session.signature)

    participant = _participant(plan, session, folder, inbox, site)
    if begin.resume and not participant.resume():
        inbox.send(Warned(text="no checkpoint was found: optimizer and scheduler begin anew"))
    _federate(plan, participant, folder, site)

    export = plan.job.export
    (folder / "model").mkdir(exist_ok=True)
    if not participant.holds_global and plan.in_order("privacy"):
        # What no mechanism has seen must not lie where a later job could send it: as its initial weights, say.
        session.set_parameters(participant.parameters())
        inbox.send(Warned(text="the server sent no weights after the last fit: the model is the last global one"))
    elif not participant.holds_global:
        inbox.send(Warned(text="the server sent no weights after the last fit: the model is this node's own"))
    files = session.export(folder / "model", export.formats)
    return participant.ended_early, files


def _build(plan: Plan, begin: Begin, prepared: data.Prepared, seed: int, inbox: Inbox) -> TrainingSession:
    host, plugins, job = plan.host, plan.plugins, plan.job
    scheduler, after = plugins.get("scheduler"), plugins.get("warmup_scheduler")
    catalog = _catalog()

    def architecture(name: str, fields: Mapping[str, Any], own_seed: int | None) -> Any:
        loaded = host.load(catalog.find("architecture", name, library=plan.library))
        return host.architecture(host.configure(loaded, fields), seed if own_seed is None else own_seed)

    context = BuildContext(
        artefact=ModelArtefact(Path(begin.artefact), begin.metadata, begin.digest),
        data=prepared.data,
        num_classes=job.num_classes,
        config=job.config[0],
        optimizer=lambda parameters: host.optimizer(plugins["optimizer"], parameters),
        scheduler=(lambda optimizer: host.scheduler(scheduler, optimizer)) if scheduler else None,
        warmup=job.warmup_config,
        warmup_scheduler=(lambda optimizer: host.scheduler(after, optimizer)) if after else None,
        architecture=architecture,
        threads=int(os.environ.get("LOCEX_THREADS", "0")) or os.cpu_count() or 1,
        seed=seed,
        should_stop=inbox.stopping,
    )
    return host.builder(plugins["builder"], context)


def _catalog() -> Catalog:
    settings = PluginSettings()
    return read_catalog(settings.policy, settings.plugin_folders)


def _participant(
    plan: Plan, session: TrainingSession, folder: Path, inbox: Inbox, site: SiteSettings
) -> NodeParticipant:
    def ask(message: object) -> LedgerAnswer:
        inbox.send(message)  # type: ignore[arg-type]
        return inbox.next(LedgerAnswer)

    context = PrivacyContext(
        dataset=site.dataset,
        ledger=lambda unit: ServiceLedger(site.dataset, unit, ask),
        epsilon_spent=lambda unit, epsilon: participant.epsilon_spent(unit, epsilon),  # noqa: PLW0108 -- made below
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
    )
    return participant


def _federate(plan: Plan, participant: NodeParticipant, folder: Path, site: SiteSettings) -> None:
    (folder / "federation").mkdir(exist_ok=True)
    context = FederationContext(
        server_address=plan.job.server_address,
        folder=folder / "federation",
        root_certificates=site.root_certificates,
        insecure=site.root_certificates is None,
        patience=site.patience,
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
    told = error if isinstance(error, LocexError) else LocexError(f"{type(error).__name__}: {error}", code=kind.code)
    return Failed(failure=kind, error=told.to_json())
