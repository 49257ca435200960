"""A job's plugins, loaded and with valid fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from locex.jobs.choices import Choice, choices_of, find, with_validated
from locex.plugins.catalog import Catalog
from locex.plugins.host import Configured, Host, Loaded
from locex.schemas.job import JobConfiguration
from locex.settings import SiteSettings

_BUILDER_FIELDS = ("eval_func", "eval_metrics", "export")
"""Top-level fields of a job that its builder takes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A configured job: its plugins by role, and the configuration with every field of theirs."""

    host: Host
    job: JobConfiguration
    library: str
    plugins: dict[str, Configured]
    warnings: list[str]

    def distributions(self) -> dict[str, str]:
        """Return the distributions in use with their versions."""
        entries = (plugin.loaded.entry for plugin in self.plugins.values())
        return {entry.distribution: entry.version for entry in entries}

    def in_order(self, prefix: str) -> list[Configured]:
        """Return the plugins whose role begins with a word, in the order of the job: ``train.0``, ``train.1``, …."""
        return [plugin for role, plugin in self.plugins.items() if role.startswith(f"{prefix}.")]


def make_plan(job: JobConfiguration, library: str, catalog: Catalog, site: SiteSettings) -> Plan:
    """Load every plugin of a job and validate its fields; raise the error that the user is to see."""
    host = Host()
    plugins: dict[str, Configured] = {}
    for choice in choices_of(job, library, site):
        loaded = host.load(find(catalog, choice, library))
        plugins[choice.role] = host.configure(loaded, _fields(job, choice, loaded), at=choice.path)
    fields = {
        role: plugin.config.model_dump(mode="json", by_alias=False, exclude_none=True)
        for role, plugin in plugins.items()
    }
    return Plan(host, with_validated(job, fields), library, plugins, _untaken(job, plugins["builder"]))


def _fields(job: JobConfiguration, choice: Choice, loaded: Loaded) -> dict[str, Any]:
    """Return a plugin's fields, with those that stand elsewhere in the job."""
    known = loaded.config_model.model_fields
    if choice.role == "builder":
        return {name: value for name, value in _for_builder(job).items() if name in known}
    rate = job.config[0].learning_rate
    if choice.role == "optimizer" and rate is not None and not {"lr", "learning_rate"} & choice.fields.keys():
        takes = next((name for name in ("learning_rate", "lr") if name in known), None)
        return {**choice.fields, takes: rate} if takes else choice.fields
    return choice.fields


def _for_builder(job: JobConfiguration) -> dict[str, Any]:
    """Return what the job says to its builder, defaults left out."""
    return job.model_dump(include={*_BUILDER_FIELDS}, exclude_defaults=True)


def _untaken(job: JobConfiguration, builder: Configured) -> list[str]:
    """Return a warning for every field that the builder does not have: nothing is ignored in silence."""
    return [
        f"{name} was ignored: the builder {builder.loaded.entry.name} does not take it"
        for name in _for_builder(job)
        if name not in builder.loaded.config_model.model_fields
    ]
