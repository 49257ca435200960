"""A job's plugins, loaded and with valid fields."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from locex.api import PrivacyReview
from locex.errors import InvalidConfiguration
from locex.jobs.choices import BUILDER_FIELDS, Choice, choices_of, find, with_validated
from locex.plugins.catalog import Catalog
from locex.plugins.host import Configured, Host, Loaded
from locex.plugins.kinds import KINDS
from locex.schemas.job import JobConfiguration
from locex.settings import SiteSettings


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


def make_plan(
    job: JobConfiguration, library: str, catalog: Catalog, site: SiteSettings, *, kinds: Collection[str] = tuple(KINDS)
) -> Plan:
    """Load every plugin of a job and validate its fields; raise the error that the user is to see.

    ``kinds`` are the kinds of plugins that are wanted: a dry run needs no federation.
    """
    host = Host()
    plugins: dict[str, Configured] = {}
    warnings: list[str] = []
    for choice in choices_of(job, library, site):
        if choice.kind not in kinds or (choice.role == "warmup_scheduler" and job.warmup_config is None):
            continue
        loaded = host.load(find(catalog, choice, library))
        if choice.role == "builder":
            plugins["builder"] = _builder(host, loaded, job, choice)
            job, warnings = _taken(job, loaded)
        else:
            plugins[choice.role] = host.configure(loaded, _fields(job, choice, loaded), at=choice.path)
    warnings = [*warnings, *_reviewed(host, plugins, job, library)]
    fields = {
        role: plugin.config.model_dump(mode="json", by_alias=False, exclude_none=True)
        for role, plugin in plugins.items()
    }
    if "builder" in fields:
        fields["builder"] = {name: value for name, value in fields["builder"].items() if name not in BUILDER_FIELDS}
    return Plan(host, with_validated(job, fields), library, plugins, warnings)


def _reviewed(host: Host, plugins: dict[str, Configured], job: JobConfiguration, library: str) -> list[str]:
    """Let every privacy mechanism look at the job, the others and the library; return their warnings."""
    mechanisms = {role.removeprefix("privacy."): one for role, one in plugins.items() if role.startswith("privacy.")}
    configs = {name: plugin.config for name, plugin in mechanisms.items()}
    others = {role: plugin.config for role, plugin in plugins.items() if not role.startswith("privacy.")}
    review = PrivacyReview(configs, job.federation or "", library, others, job)
    return [warning for plugin in mechanisms.values() for warning in host.review_privacy(plugin, review)]


def _builder(host: Host, loaded: Loaded, job: JobConfiguration, choice: Choice) -> Configured:
    """Configure the builder with its options and with what stands at the top level of the job."""
    known = loaded.config_model.model_fields
    top = {name: value for name, value in _for_builder(job).items() if name in known}
    misplaced = [name for name in choice.fields if name in BUILDER_FIELDS]
    if misplaced:
        faults = [{"path": f"{choice.path}/{name}", "message": f"{name} stands beside builder"} for name in misplaced]
        raise InvalidConfiguration(faults[0]["message"], remedy="move it to the top level of the job", errors=faults)
    try:
        return host.configure(loaded, {**top, **choice.fields})
    except InvalidConfiguration as error:
        faults = [fault | {"path": _placed(fault["path"], choice.path)} for fault in error.errors]
        raise InvalidConfiguration(error.message, remedy=error.remedy, errors=faults) from None


def _placed(path: str, options: str) -> str:
    return path if path.split("/")[1] in BUILDER_FIELDS else f"{options}{path}"


def _taken(job: JobConfiguration, builder: Loaded) -> tuple[JobConfiguration, list[str]]:
    """Return the job without a warm-up that its builder does not take; warn of everything that is ignored."""
    warnings = [
        f"{name} was ignored: the builder {builder.entry.name} does not take it"
        for name in _for_builder(job)
        if name not in builder.config_model.model_fields
    ]
    if "warmup_config" not in builder.config_model.model_fields:
        return job.model_copy(update={"warmup_config": None}), warnings
    return job, [*warnings, *_unused(job)]


def _unused(job: JobConfiguration) -> list[str]:
    """Return a warning for every field of a warm-up that another one overrides."""
    warmup = job.warmup_config
    if warmup is None:
        return []
    warnings = []
    if warmup.scheduler not in {None, "linear"}:
        warnings.append(f"warmup_config.scheduler {warmup.scheduler!r} was ignored: a warm-up is linear")
    if warmup.warmup_iters is not None and warmup.warmup_epochs is not None:
        warnings.append("warmup_config.warmup_epochs was ignored: warmup_iters is given")
    if warmup.scheduler_conf is not None and job.scheduler_config is not None:
        warnings.append("scheduler_config was ignored: warmup_config.scheduler_conf follows the warm-up")
    return warnings


def _fields(job: JobConfiguration, choice: Choice, loaded: Loaded) -> dict[str, Any]:
    """Return a plugin's fields; the optimizer's with the learning rate of the training where it names none."""
    known = loaded.config_model.model_fields
    rate = job.config[0].learning_rate
    if choice.role == "optimizer" and rate is not None and not {"lr", "learning_rate"} & choice.fields.keys():
        takes = next((name for name in ("learning_rate", "lr") if name in known), None)
        return {**choice.fields, takes: rate} if takes else choice.fields
    return choice.fields


def _for_builder(job: JobConfiguration) -> dict[str, Any]:
    """Return what the job says to its builder at the top level, defaults left out."""
    return job.model_dump(include={*BUILDER_FIELDS}, exclude_defaults=True)
