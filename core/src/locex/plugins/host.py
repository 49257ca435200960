"""The plugins of one job, in the worker: stevedore loads by name, pluggy registers and checks, a typed facade calls.

A host lives per job. Instances are registered one by one and addressed one by one: two ``basic_norm`` steps are two.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import pluggy
from stevedore.driver import DriverManager

from locex import hookspecs
from locex.api import (
    Aggregation,
    BuildContext,
    ContributionDecoder,
    DataSource,
    Federation,
    FederationContext,
    Inferencer,
    InferencerContext,
    PrivacyContext,
    PrivacyMechanism,
    PrivacyReview,
    SiteContext,
    TrainingSession,
    Transform,
)
from locex.errors import BrokenPlugin
from locex.plugins.catalog import Entry
from locex.plugins.kinds import KINDS
from locex.schemas.base import validate
from locex.schemas.plugin import PluginConfig
from locex.store.protocol import Store, StoreContext


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A plugin that was imported, made and found to implement its kind's hooks."""

    entry: Entry
    instance: object
    config_model: type[PluginConfig]


@dataclass(frozen=True, slots=True, eq=False)
class Configured:
    """A loaded plugin with its valid configuration."""

    loaded: Loaded
    config: PluginConfig


class Host:
    """Loads, configures and calls plugins."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("locex")
        self._manager.add_hookspecs(hookspecs)

    def load(self, entry: Entry) -> Loaded:
        """Import a plugin and check it; raise `BrokenPlugin` with the reason. The import may run any code."""
        instance = self._import(entry)
        try:
            self._manager.register(instance, f"{entry.kind} {entry.name} ({len(self._manager.get_plugins()) + 1})")
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise _broken(entry, str(error).replace("\n", " ")) from None
        hooks = {caller.name for caller in self._manager.get_hookcallers(instance) or ()}
        for hook in ("locex_config_model", KINDS[entry.kind].hook):
            if hook not in hooks:
                raise _broken(entry, f"it does not implement {hook} (is @hookimpl missing?)")
        try:
            model = self._call(instance, "locex_config_model")
        except Exception as error:
            raise _broken(entry, f"locex_config_model raised {type(error).__name__}: {error}") from error
        if not (isinstance(model, type) and issubclass(model, PluginConfig)):
            raise _broken(entry, f"locex_config_model returned {model!r}, not a subclass of PluginConfig")
        return Loaded(entry, instance, model)

    def configure(self, loaded: Loaded, fields: Mapping[str, Any], *, at: str = "") -> Configured:
        """Validate a user's fields; raise `InvalidConfiguration` with pointers below ``at``."""
        return Configured(loaded, validate(loaded.config_model, fields, at=at))

    def architecture(self, plugin: Configured, seed: int) -> Any:
        """Return a new model of the plugin's library."""
        return self._create(plugin, seed=seed)

    def builder(self, plugin: Configured, context: BuildContext) -> TrainingSession:
        """Return a training session."""
        return cast("TrainingSession", self._create(plugin, context=context))

    def optimizer(self, plugin: Configured, parameters: Any) -> Any:
        """Return the library's optimizer."""
        return self._create(plugin, parameters=parameters)

    def scheduler(self, plugin: Configured, optimizer: Any) -> Any:
        """Return the library's scheduler."""
        return self._create(plugin, optimizer=optimizer)

    def transform(self, plugin: Configured) -> Transform:
        """Return one step of a pipeline."""
        return cast("Transform", self._create(plugin))

    def data(self, plugin: Configured, context: SiteContext) -> DataSource:
        """Return a data source."""
        return cast("DataSource", self._create(plugin, context=context))

    def privacy(self, plugin: Configured, context: PrivacyContext) -> PrivacyMechanism:
        """Return a privacy mechanism."""
        return cast("PrivacyMechanism", self._create(plugin, context=context))

    def review_privacy(self, plugin: Configured, review: PrivacyReview) -> list[str]:
        """Return a mechanism's warnings about the job that names it; raise `PrivacyRefused`."""
        return list(
            self._call(plugin.loaded.instance, "locex_review_privacy", config=plugin.config, review=review) or ()
        )

    def aggregation(self, plugin: Configured) -> Aggregation | ContributionDecoder:
        """Return the collector's half of a mechanism, or a strategy."""
        return cast("Aggregation | ContributionDecoder", self._create(plugin))

    def federation(self, plugin: Configured, context: FederationContext) -> Federation:
        """Return a connection to a federation, not yet open."""
        return cast("Federation", self._create(plugin, context=context))

    def store(self, plugin: Configured, context: StoreContext) -> Store:
        """Return a store, not yet open."""
        return cast("Store", self._create(plugin, context=context))

    def inferencer(self, plugin: Configured, context: InferencerContext) -> Inferencer:
        """Return one version of a model, loaded."""
        return cast("Inferencer", self._create(plugin, context=context))

    def _create(self, plugin: Configured, **arguments: Any) -> Any:
        entry = plugin.loaded.entry
        made = self._call(plugin.loaded.instance, KINDS[entry.kind].hook, config=plugin.config, **arguments)
        if made is None:
            raise _broken(entry, f"{KINDS[entry.kind].hook} returned None")
        return made

    def _call(self, instance: object, hook: str, **arguments: Any) -> Any:
        others = [plugin for plugin in self._manager.get_plugins() if plugin is not instance]
        return self._manager.subset_hook_caller(hook, others)(**arguments)

    def _import(self, entry: Entry) -> object:
        failures: list[BaseException] = []
        try:
            driver = _Driver(entry, failures)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- a plugin may raise anything on import
            cause = failures[0] if failures else error
            raise _broken(entry, f"{type(cause).__name__}: {cause}".removesuffix(": ")) from cause
        return driver.driver


class _Driver(DriverManager[object]):
    """Finds exactly the entry point that the catalogue chose.

    stevedore would import every distribution that offers the name before it resolves the conflict, a denied one too,
    and keep a cache of entry points in the home folder, which may be read-only.
    """

    def __init__(self, entry: Entry, failures: list[BaseException]) -> None:
        self._entry = entry
        super().__init__(
            namespace=KINDS[entry.kind].group,
            name=entry.name,
            invoke_on_load=True,
            on_load_failure_callback=lambda _manager, _point, error: failures.append(error),
        )

    def list_entry_points(self) -> list[importlib.metadata.EntryPoint]:
        for distribution in importlib.metadata.distributions(name=self._entry.distribution):
            group = distribution.entry_points.select(group=KINDS[self._entry.kind].group, name=self._entry.name)
            if group:
                return list(group)
        return []


def _broken(entry: Entry, reason: str) -> BrokenPlugin:
    return BrokenPlugin(entry.kind, entry.name, entry.origin, reason)
