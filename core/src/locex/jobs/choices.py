"""Which plugins a job names, where, and with which fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from locex.plugins.catalog import Catalog, Entry
from locex.schemas.job import JobConfiguration
from locex.settings import SiteSettings

BUILDER_FIELDS = ("eval_func", "eval_metrics", "export", "warmup_config")
"""Top-level fields of a job that its builder takes, beside the options in ``builder``."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One plugin that a job names. ``path`` is the JSON pointer of its fields, ``name_path`` that of its name."""

    role: str
    kind: str
    name: str
    fields: dict[str, Any]
    path: str
    name_path: str


def choices_of(job: JobConfiguration, library: str, site: SiteSettings) -> list[Choice]:
    """Return every plugin of a job in which nothing is left open (`locex.jobs.site.fill_in`).

    A job names its federation; the federation's fields are the operator's, since they may name keys.
    """
    assert job.optimizer_config is not None
    assert job.data is not None
    assert job.transformations is not None
    assert job.federation is not None
    optimizer, data = job.optimizer_config, job.data
    choices = [
        Choice("builder", "builder", library, given(job.builder), "/builder", "/model_name"),
        Choice(
            "federation",
            "federation",
            job.federation,
            site.federation_fields.get(job.federation, {}),
            "",
            "/federation",
        ),
        Choice("data", "data", data.source, data.fields(), "/data", "/data/source"),
        _choice("optimizer", "optimizer", optimizer.optimizer, optimizer.fields(), "/optimizer_config"),
    ]
    if scheduler := job.scheduler_config:
        choices.append(_choice("scheduler", "scheduler", scheduler.scheduler, scheduler.fields(), "/scheduler_config"))
    if job.warmup_config and (after := job.warmup_config.scheduler_conf):
        path = "/warmup_config/scheduler_conf"
        choices.append(_choice("warmup_scheduler", "scheduler", after.scheduler, after.fields(), path))
    for side in ("train", "test"):
        for position, step in enumerate(getattr(job.transformations, side)):
            path = f"/transformations/{side}/{position}"
            role = f"{side}.{position}"
            choices.append(Choice(role, "transform", step.id, step.parameters, f"{path}/parameters", f"{path}/id"))
    for name, fields in job.privacy_mechanisms.items():
        path = f"/privacy-mechanisms/{name}"
        choices.append(Choice(f"privacy.{name}", "privacy", name, given(fields), path, path))
    return choices


def given(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are not null."""
    return {key: value for key, value in fields.items() if value is not None}


def find(catalog: Catalog, choice: Choice, library: str) -> Entry:
    """Return the installed plugin that is meant; raise the catalogue's errors."""
    return catalog.find(choice.kind, choice.name, library=library, path=choice.name_path)


def _choice(role: str, kind: str, name: str, fields: dict[str, Any], path: str) -> Choice:
    return Choice(role, kind, name, fields, path, f"{path}/{kind}")


def with_validated(job: JobConfiguration, fields: dict[str, dict[str, Any]]) -> JobConfiguration:
    """Return the job with every plugin's fields replaced by the validated ones, by role."""
    update: dict[str, Any] = {}
    if "optimizer" in fields and job.optimizer_config:
        update["optimizer_config"] = {"optimizer": job.optimizer_config.optimizer, **fields["optimizer"]}
    if "scheduler" in fields and job.scheduler_config:
        update["scheduler_config"] = {"scheduler": job.scheduler_config.scheduler, **fields["scheduler"]}
    if "data" in fields and job.data:
        update["data"] = {"source": job.data.source, **fields["data"]}
    if "builder" in fields:
        update["builder"] = fields["builder"]
    content = job.model_dump(mode="json", by_alias=True, exclude_none=True) | update
    if "warmup_scheduler" in fields:
        after = content["warmup_config"]["scheduler_conf"]
        content["warmup_config"]["scheduler_conf"] = {"scheduler": after["scheduler"], **fields["warmup_scheduler"]}
    for side in ("train", "test"):
        for position, step in enumerate(content.get("transformations", {}).get(side, ())):
            step["parameters"] = fields.get(f"{side}.{position}", step["parameters"])
    for name in content["privacy-mechanisms"]:
        content["privacy-mechanisms"][name] = fields.get(f"privacy.{name}", content["privacy-mechanisms"][name])
    return JobConfiguration.model_validate(content)
