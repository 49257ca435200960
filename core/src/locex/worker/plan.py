"""A job's plugins, loaded and with valid fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from locex.jobs.choices import Choice, choices_of, find, with_validated
from locex.plugins.catalog import Catalog
from locex.plugins.host import Configured, Host, Loaded
from locex.schemas.job import JobConfiguration


@dataclass(frozen=True, slots=True)
class Plan:
    """A configured job: its plugins by role, and the configuration with every field of theirs."""

    host: Host
    job: JobConfiguration
    library: str
    plugins: dict[str, Configured]

    def distributions(self) -> dict[str, str]:
        """Return the distributions in use with their versions."""
        entries = (plugin.loaded.entry for plugin in self.plugins.values())
        return {entry.distribution: entry.version for entry in entries}

    def in_order(self, prefix: str) -> list[Configured]:
        """Return the plugins whose role begins with a word, in the order of the job: ``train.0``, ``train.1``, …."""
        return [plugin for role, plugin in self.plugins.items() if role.startswith(f"{prefix}.")]


def make_plan(job: JobConfiguration, library: str, catalog: Catalog) -> Plan:
    """Load every plugin of a job and validate its fields; raise the error that the user is to see."""
    host = Host()
    plugins: dict[str, Configured] = {}
    for choice in choices_of(job, library):
        loaded = host.load(find(catalog, choice, library))
        plugins[choice.role] = host.configure(loaded, _with_learning_rate(job, choice, loaded), at=choice.path)
    fields = {
        role: plugin.config.model_dump(mode="json", by_alias=False, exclude_none=True)
        for role, plugin in plugins.items()
    }
    return Plan(host, with_validated(job, fields), library, plugins)


def _with_learning_rate(job: JobConfiguration, choice: Choice, loaded: Loaded) -> dict[str, Any]:
    """Let ``config[0].learning_rate`` stand in where the optimizer's own fields name none."""
    rate = job.config[0].learning_rate
    if choice.role != "optimizer" or rate is None or {"lr", "learning_rate"} & choice.fields.keys():
        return choice.fields
    takes = next((name for name in ("learning_rate", "lr") if name in loaded.config_model.model_fields), None)
    return {**choice.fields, takes: rate} if takes else choice.fields
