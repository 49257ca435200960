"""The node: what its machine can do, how its data looks, what is installed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from aiohttp import web

from locex import machine
from locex.errors import (
    DataUnavailable,
    InterpreterUnavailable,
    InvalidConfiguration,
    InvalidModel,
    RepositoryUnavailable,
    StepFailed,
    StoreUnavailable,
    UnknownModel,
)
from locex.gpus import find_gpus
from locex.jobs.questions import FormatVerdict
from locex.plugins.listing import PluginInfo
from locex.schemas.capabilities import Capabilities
from locex.schemas.data_format import DataFormat
from locex.web.routes import Routes, Scope
from locex_server.api.keys import CHECKS, FORMATS, INSTALLED, JOBS, LISTING, SETTINGS
from locex_server.api.plugin_errors import PLUGIN_ERRORS
from locex_server.checks import FormatCheck

routes = Routes()


@routes.get("/capabilities", tag="node", response=Capabilities, errors=(StoreUnavailable, InterpreterUnavailable))
async def get_capabilities(request: web.Request) -> Capabilities:
    """Get the computational capabilities of the machine that AI Local Execution is running on."""
    installed, folder = request.app[INSTALLED], request.app[SETTINGS].state_folder
    plugins: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for entry in (await installed.catalog()).entries:
        plugins[entry.kind][entry.name] = entry.origin
    return Capabilities(
        storage=machine.free_storage(folder),
        RAM=machine.free_memory(),
        GPU=machine.has_gpu(),
        cores=machine.cores(),
        total_storage=machine.total_storage(folder),
        total_memory=machine.total_memory(),
        gpus=await asyncio.to_thread(find_gpus),
        plugins=dict(plugins),
        preinstalled_libraries=await installed.libraries(),
        available_models=await request.app[JOBS].models.versions(),
    )


@routes.get(
    "/format",
    tag="node",
    response=DataFormat,
    errors=(DataUnavailable, InvalidConfiguration, *PLUGIN_ERRORS),
)
async def get_format(request: web.Request) -> dict[str, Any]:
    """Get the format of the data that a given instance has currently access to."""
    return (await request.app[FORMATS].current()).model_dump(exclude_none=True)


@routes.post(
    "/format/check",
    tag="node",
    scope=Scope.RUN,
    body=FormatCheck,
    response=FormatVerdict,
    statuses={"model-unknown": 422},
    errors=(
        DataUnavailable,
        InvalidConfiguration,
        InvalidModel,
        UnknownModel,
        StepFailed,
        *PLUGIN_ERRORS,
        RepositoryUnavailable,
        StoreUnavailable,
    ),
)
async def check_format(request: web.Request, body: FormatCheck) -> FormatVerdict:
    """Tell whether data source, transformations and model go together, without training.

    The body is a job, or those of its fields that matter here. No example is read: the format that the source declares
    is passed through every step, and the model is loaded over made-up examples of the last format. Needs the scope
    *run*, since it runs plugins and may fetch the model.
    """
    return await request.app[CHECKS].verdict(body)


@routes.get("/plugins", tag="node", response=list[PluginInfo], errors=(InterpreterUnavailable,))
async def list_plugins(request: web.Request) -> list[PluginInfo]:
    """Return every installed plugin with the schema of its configuration, the broken ones with their error."""
    return await request.app[LISTING].all()
