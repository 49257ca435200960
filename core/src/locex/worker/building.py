"""The training session of a job: its builder, given everything that the job's plugins bring."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from locex.api import BuildContext, LocalData, ModelArtefact, TrainingSession
from locex.plugins.catalog import Catalog
from locex.settings import SiteSettings
from locex.worker.plan import Plan


def build(
    plan: Plan,
    site: SiteSettings,
    catalog: Catalog,
    artefact: ModelArtefact,
    data: LocalData,
    *,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = lambda _: None,
) -> TrainingSession:
    """Return a session over data that are ready; raise what the builder finds wrong with model or options."""
    host, plugins, job = plan.host, plan.plugins, plan.job
    scheduler, after = plugins.get("scheduler"), plugins.get("warmup_scheduler")

    def architecture(name: str, fields: Mapping[str, Any], own_seed: int | None) -> Any:
        loaded = host.load(catalog.find("architecture", name, library=plan.library))
        return host.architecture(host.configure(loaded, fields), seed if own_seed is None else own_seed)

    context = BuildContext(
        artefact=artefact,
        data=data,
        num_classes=job.num_classes,
        config=job.config[0],
        optimizer=lambda parameters: host.optimizer(plugins["optimizer"], parameters),
        scheduler=(lambda optimizer: host.scheduler(scheduler, optimizer)) if scheduler else None,
        warmup=job.warmup_config,
        warmup_scheduler=(lambda optimizer: host.scheduler(after, optimizer)) if after else None,
        architecture=architecture,
        threads=int(os.environ.get("LOCEX_THREADS", "0")) or os.cpu_count() or 1,
        seed=seed,
        should_stop=should_stop,
        warn=warn,
        allow_programs=site.allow_programs,
    )
    return host.builder(plugins["builder"], context)
