"""Every installed plugin, for people and programs: its origin, what may be configured, or why it cannot be used."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import BaseModel, Field

from locex.errors import LocexError, RefusedPlugin
from locex.plugins.catalog import CORE, Catalog, Entry
from locex.plugins.descriptions import Descriptions
from locex.plugins.installed import Installed
from locex.plugins.kinds import KINDS
from locex.settings import NodeSettings


class PluginError(BaseModel):
    """Why a plugin cannot be used."""

    code: str = Field(description="The stable error code.")
    message: str = Field(description="What is wrong.")
    remedy: str = Field(default="", description="What to do about it.")


class PluginInfo(BaseModel):
    """One installed plugin."""

    kind: str = Field(description="builder, optimizer, transform, …")
    name: str = Field(description="The entry point's name.")
    library: str | None = Field(default=None, description="The library, for kinds that go by library.")
    distribution: str = Field(description="The package that brings it.")
    version: str = Field(description="The package's version.")
    description: str = Field(default="", description="The first line of its docstring.")
    configuration: dict[str, Any] | None = Field(default=None, description="JSON Schema of its fields.")
    frameworks: list[str] = Field(default_factory=list, description="Frameworks that its import brought along.")
    error: PluginError | None = Field(default=None, description="Why it cannot be used.")


class Listing:
    """Joins what the catalogue knows with what describe processes found."""

    def __init__(self, installed: Installed, descriptions: Descriptions) -> None:
        self._installed = installed
        self._descriptions = descriptions

    @classmethod
    def of(cls, settings: NodeSettings) -> Listing:
        """Return the listing of a node."""
        interpreter, folders = settings.worker_python, settings.plugin_folders
        return cls(
            Installed(settings.policy, interpreter=interpreter, folders=folders),
            Descriptions(
                settings.state_folder / "descriptions",
                interpreter=interpreter,
                folders=folders,
                patience=settings.plugin_timeout,
                memory_mb=settings.plugin_memory_mb,
            ),
        )

    async def fingerprint(self) -> str:
        """Return what changes when any installed plugin changes."""
        return (await self._installed.catalog()).fingerprint

    async def all(self, *, name: str | None = None) -> list[PluginInfo]:
        """Return every installed plugin by kind and name; with ``name``, only those called so."""
        catalog = await self._installed.catalog()
        offering = {entry.distribution for entry in catalog.entries if name in {None, entry.name}} | {CORE}
        asked = [entry for entry in catalog.entries if entry.distribution in offering]
        described = await self._descriptions.of(Catalog(asked, catalog.versions, catalog.policy))
        counts = Counter((entry.kind, entry.name) for entry in catalog.entries)
        return [
            _info(catalog, entry, counts[entry.kind, entry.name], described.get(_key(entry), {}))
            for entry in catalog.entries
            if name in {None, entry.name}
        ]


def _info(catalog: Catalog, entry: Entry, same_name: int, described: dict[str, Any]) -> PluginInfo:
    error = described.get("error")
    try:
        found = catalog.find(entry.kind, entry.name)
        if same_name > 1 and found != entry:
            rule = catalog.policy.rule_against(entry.distribution) or ""
            raise RefusedPlugin(entry.kind, entry.name, entry.origin, rule)
    except LocexError as refusal:
        error = refusal.to_json()
    return PluginInfo(
        kind=entry.kind,
        name=entry.name,
        library=entry.name.partition(".")[0] if KINDS[entry.kind].by_library else None,
        distribution=entry.distribution,
        version=entry.version,
        description=described.get("description", ""),
        configuration=described.get("schema"),
        frameworks=described.get("frameworks", []),
        error=None if error is None else PluginError.model_validate(error),
    )


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry.kind, entry.name, entry.distribution
