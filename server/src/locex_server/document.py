"""The job configuration in the OpenAPI document, with the fields of every plugin that is installed right now."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

from locex.jobs.choices import BUILDER_FIELDS
from locex.plugins.listing import Listing, PluginInfo
from locex.schemas.base import schema_of
from locex.schemas.job import JobConfiguration
from locex.web.openapi import REFERENCE

_PREFIX = "#/components/schemas/"


class PluginSchemas:
    """Extends the document by schemas of installed plugins (`locex.web.openapi.Extension`)."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    async def key(self) -> Hashable:
        """Return the state of what is installed."""
        return await self._listing.fingerprint()

    async def extend(self, document: dict[str, Any]) -> None:
        """Put JobConfiguration and the plugins' schemas into the components."""
        components = document["components"]["schemas"]
        job = schema_of(JobConfiguration, ref_template=REFERENCE)
        components |= job.pop("$defs", {})
        components["JobConfiguration"] = job | {"additionalProperties": True}
        usable = [info for info in await self._listing.all() if info.configuration is not None and info.error is None]
        for info in usable:
            components[_component(info)] = _named(info, components)
        components["OptimizerChoice"] = _any_of(usable, "optimizer")
        components["SchedulerChoice"] = _any_of(usable, "scheduler")
        components["DataChoice"] = _any_of(usable, "data", key="source")
        components["TransformStep"] = _any_of(usable, "transform", key="id")
        options = [_options(info, components) for info in usable if info.kind == "builder"]
        job["properties"]["builder"] |= {"anyOf": [*options, {"type": "object"}]}
        job["properties"]["privacy-mechanisms"] |= {
            "properties": {info.name: _reference(info) for info in usable if info.kind == "privacy"},
            "additionalProperties": {"type": "object"},
        }


def _options(info: PluginInfo, components: dict[str, Any]) -> dict[str, Any]:
    """Return what a job may write in ``builder``: the rest of the builder's fields stand at the top level."""
    schema = components[_component(info)]
    properties = {name: value for name, value in schema["properties"].items() if name not in BUILDER_FIELDS}
    return {"type": "object", "title": schema["title"], "properties": properties, "additionalProperties": False}


def _component(info: PluginInfo) -> str:
    return f"{info.kind}.{info.name}"


def _reference(info: PluginInfo) -> dict[str, str]:
    return {"$ref": _PREFIX + _component(info)}


def _any_of(infos: list[PluginInfo], kind: str, key: str | None = None) -> dict[str, Any]:
    """Return a choice among the installed plugins of a kind; the library is not in the body, so names may repeat.

    A name that no installed plugin has is for the service to refuse, with the list of those it has: the document
    admits it, so that what one node publishes is not what another must obey.
    """
    known = [info for info in infos if info.kind == kind]
    key = key or kind
    unknown: dict[str, Any] = {
        "type": "object",
        "title": f"a {kind} that is not installed here",
        "required": [key],
        "properties": {key: {"type": "string", "not": {"enum": sorted({_typed(info) for info in known})}}},
    }
    return {"anyOf": [*map(_reference, known), unknown], "description": f"One {kind}, by name, with its own fields."}


def _named(info: PluginInfo, components: dict[str, Any]) -> dict[str, Any]:
    """Return a plugin's schema together with the key that names it, its definitions moved to the components."""
    schema = dict(info.configuration or {})
    for name, definition in schema.pop("$defs", {}).items():
        components[f"{_component(info)}.{name}"] = _moved(definition, info)
    schema = _moved(schema, info)
    schema["description"] = info.description or schema.get("description", "")
    schema["title"] = f"{info.name} ({info.distribution} {info.version})"
    if info.kind in {"optimizer", "scheduler"}:
        return _with_key(schema, info.kind, _typed(info))
    if info.kind == "data":
        return _with_key(schema, "source", info.name)
    if info.kind == "transform":
        step = {"type": "object", "title": schema["title"], "description": schema["description"]}
        parameters = {"anyOf": [schema, {"type": "null"}]}
        properties = {"parameters": parameters, "params": parameters}
        return _with_key(step | {"properties": properties, "additionalProperties": False}, "id", info.name)
    return schema


def _with_key(schema: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    properties = {key: {"const": name, "type": "string"}} | schema.get("properties", {})
    return schema | {"properties": properties, "required": [key, *schema.get("required", [])]}


def _typed(info: PluginInfo) -> str:
    """Return the name as users type it in a job."""
    return info.name.partition(".")[2] if info.library else info.name


def _moved(content: dict[str, Any], info: PluginInfo) -> dict[str, Any]:
    """Point references into a plugin's own definitions at where they are now."""
    text = json.dumps(content).replace('"#/$defs/', f'"{_PREFIX}{_component(info)}.')
    moved: dict[str, Any] = json.loads(text)
    return moved
