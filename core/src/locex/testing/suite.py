"""The contract suite over installed plugins: what `locex plugins check` and the fixture ``locex_check`` run."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from locex.plugins.check import faults_of
from locex.plugins.installed import Installed
from locex.plugins.listing import Listing, PluginInfo
from locex.settings import NodeSettings, read_settings
from locex.testing.contract.verdict import Verdict
from locex.testing.trial import TRIED, Trial, verdict_on


async def check(name: str, *, kind: str | None = None, **given: Any) -> dict[str, tuple[PluginInfo, Verdict]]:
    """Check every plugin called ``name``: its metadata and configuration, then how it acts when it is used.

    ``given`` are the further fields of a `Trial`. Returns, by label, what the plugin is and what was found.
    """
    settings = read_settings(NodeSettings)
    infos = [info for info in await Listing.of(settings).all(name=name) if kind in {None, info.kind}]
    found = {}
    for info in infos:
        verdict = Verdict(faults_of(info))
        if info.kind in TRIED and not verdict.faults:
            verdict = await _tried(info, settings, given)
        found[f"{info.kind} {info.name} of {info.distribution} {info.version}"] = (info, verdict)
    return found


def check_now(name: str, **given: Any) -> dict[str, Verdict]:
    """Do the same from synchronous code, whether or not an event loop runs in this thread."""
    found: dict[str, Verdict] = {}

    def run() -> None:
        found.update({label: verdict for label, (_, verdict) in asyncio.run(check(name, **given)).items()})

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found


async def _tried(info: PluginInfo, settings: NodeSettings, given: dict[str, Any]) -> Verdict:
    folders: list[Path] = settings.plugin_folders
    catalog = await Installed(settings.policy, interpreter=settings.worker_python, folders=folders).catalog()
    entry = catalog.find(info.kind, info.name)
    asked = {
        "entry": asdict(entry),
        "folders": [str(folder) for folder in folders],
        "memory_mb": settings.plugin_memory_mb,
    }
    trial = Trial.model_validate(asked | given)
    return await verdict_on(trial, interpreter=settings.worker_python)
