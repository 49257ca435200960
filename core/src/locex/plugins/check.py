"""What a plugin must keep beyond being loadable; `locex plugins check` and the contract suite ask this."""

from __future__ import annotations

from typing import Any

from locex.plugins.kinds import KINDS
from locex.plugins.listing import PluginInfo


def faults_of(info: PluginInfo) -> list[str]:
    """Return everything that is wrong with an installed plugin, in words for its author."""
    faults = []
    if info.error is not None:
        faults.append(f"{info.error.message} ({info.error.code})")
    if KINDS[info.kind].by_library and "." not in info.name:
        faults.append(f"the name must be <library>.<name>, e.g. pytorch.{info.name}")
    if info.frameworks:
        faults.append(
            f"its module imports {', '.join(info.frameworks)}: import frameworks inside {KINDS[info.kind].hook}"
        )
    faults += [f"the field {name!r} has no description" for name in _undescribed(info.configuration or {})]
    return faults


def _undescribed(schema: dict[str, Any]) -> list[str]:
    return [name for name, field in schema.get("properties", {}).items() if not field.get("description")]
