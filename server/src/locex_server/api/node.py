"""The node: what its machine can do, how its data looks, what is installed."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections import defaultdict
from typing import Any

from aiohttp import web

from locex import machine
from locex.errors import BrokenPlugin, CrashedPlugin, DataUnavailable, InvalidConfiguration, StoreUnavailable
from locex.plugins.listing import PluginInfo
from locex.schemas.capabilities import Capabilities
from locex.schemas.data_format import DataFormat
from locex.web.models import MODELS
from locex.web.routes import Routes
from locex_server.api.keys import FORMATS, LISTING, SETTINGS

routes = Routes()


@routes.get("/capabilities", tag="node", response=Capabilities, errors=(StoreUnavailable,))
async def get_capabilities(request: web.Request) -> Capabilities:
    """Get the computational capabilities of the machine that AI Local Execution is running on."""
    models: defaultdict[str, list[str]] = defaultdict(list)
    for model in await request.app[MODELS].store.list_models():
        models[model.model_name].append(model.model_version)
    return Capabilities(
        storage=machine.free_storage(request.app[SETTINGS].state_folder),
        RAM=machine.free_memory(),
        GPU=machine.has_gpu(),
        cores=machine.cores(),
        preinstalled_libraries=await asyncio.to_thread(_libraries),
        available_models=dict(models),
    )


@routes.get(
    "/format",
    tag="node",
    response=DataFormat,
    errors=(DataUnavailable, InvalidConfiguration, BrokenPlugin, CrashedPlugin),
)
async def get_format(request: web.Request) -> dict[str, Any]:
    """Get the format of the data that a given instance has currently access to."""
    return (await request.app[FORMATS].current()).model_dump(exclude_none=True)


@routes.get("/plugins", tag="node", response=list[PluginInfo])
async def list_plugins(request: web.Request) -> list[PluginInfo]:
    """Return every installed plugin with the schema of its configuration, the broken ones with their error."""
    return await request.app[LISTING].all()


def _libraries() -> dict[str, str]:
    return {
        name: distribution.version
        for distribution in importlib.metadata.distributions()
        if (name := distribution.metadata["Name"])
    }
