"""A short-lived process that imports plugins to learn their configuration's JSON Schema, one message a plugin.

``python -m locex.plugins.describe`` reads ``{"entries": […], "folders": […], "memory_mb": …}`` and answers, for each
entry in order, ``{"schema": …, "description": …}`` or ``{"error": …}``. A plugin that ends the process is known by
the missing answer.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from locex.errors import BrokenPlugin, LocexError
from locex.plugins.catalog import Entry
from locex.plugins.host import Host
from locex.processes.channel import Channel
from locex.processes.memory import hard_limit
from locex.schemas.base import schema_of

FRAMEWORKS = ("torch", "tensorflow", "keras", "flwr", "onnxruntime", "jax")


def describe(entry: Entry) -> dict[str, Any]:
    """Load one plugin and return its schema and the first line of its docstring, or its error."""
    before = set(sys.modules)
    try:
        loaded = Host().load(entry)
        schema = schema_of(loaded.config_model)
    except LocexError as error:
        return {"error": error.to_json()}
    except Exception as error:  # noqa: BLE001 -- a plugin's model may raise anything
        reason = f"{type(error).__name__}: {error}"
        return {"error": BrokenPlugin(entry.kind, entry.name, entry.origin, reason).to_json()}
    imported = [name for name in FRAMEWORKS if name in sys.modules and name not in before]
    summary = (inspect.getdoc(type(loaded.instance)) or "").partition("\n")[0]
    return {"schema": schema, "description": summary, "frameworks": imported}


def main() -> None:
    """Answer one request and end."""
    channel = Channel.take()
    request = channel.receive() or {"entries": []}
    channel.end_with_parent()
    sys.path.extend(request.get("folders", ()))
    with hard_limit(request.get("memory_mb")):
        for entry in request["entries"]:
            channel.send(describe(Entry(**entry)))


if __name__ == "__main__":
    main()
