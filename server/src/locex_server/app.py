"""The application: what it is made of, and in which order its parts begin and end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from importlib.metadata import version

from aiohttp import web
from prometheus_client import Gauge

from locex import machine
from locex.jobs.service import JobService
from locex.plugins.installed import Installed
from locex.plugins.listing import Listing
from locex.settings import NodeSettings
from locex.store.lock import FolderLock
from locex.store.opening import chosen_store
from locex.web.app import create_app
from locex.web.auth import access_of
from locex.web.health import READINESS
from locex.web.metrics import METRICS
from locex.web.models import MODELS, ModelStore, model_routes
from locex_server.api import jobs, node
from locex_server.api.keys import CHECKS, FORMATS, INSTALLED, JOBS, LISTING, SETTINGS
from locex_server.checks import Checks
from locex_server.document import PluginSchemas
from locex_server.formats import Formats
from locex_server.inspector import Inspector
from locex_server.observed import JobMetrics
from locex_server.watching import DataFolder

DESCRIPTION = """Takes part in federated trainings next to data that must not leave this node.

Errors are RFC 9457 problem details; their `code` is stable and their `remedy` says what to do."""


def init_app(settings: NodeSettings) -> web.Application:
    """Return the service's application; raise `InvalidConfiguration` for settings that cannot be."""
    listing = Listing.of(settings)
    app = create_app(
        [jobs.routes, *model_routes(created=HTTPStatus.OK), node.routes],
        title="AI Local Execution",
        version=version("locex-server"),
        description=DESCRIPTION,
        access=access_of(settings),
        extension=PluginSchemas(listing),
    )
    app[SETTINGS] = settings
    app[LISTING] = listing
    app[INSTALLED] = Installed(settings.policy, interpreter=settings.worker_python, folders=settings.plugin_folders)
    app.cleanup_ctx.append(_own_state)
    return app


async def _own_state(app: web.Application) -> AsyncIterator[None]:
    """Own the state folder, open the store, take up jobs; all in reverse at the end."""
    settings = app[SETTINGS]
    async with contextlib.AsyncExitStack() as stack:
        lock = FolderLock(settings.state_folder)
        await asyncio.to_thread(lock.acquire)
        stack.callback(lock.release)
        store = await asyncio.to_thread(chosen_store, settings)
        await store.open()
        stack.push_async_callback(store.close)
        app[MODELS] = ModelStore(store, settings.max_model_mb * 2**20)
        folder = DataFolder(settings.data_folder)
        stack.push_async_callback(folder.close)
        inspector = Inspector(settings, app[INSTALLED], folder)
        app[FORMATS] = Formats(settings, inspector)
        app[JOBS] = JobService(settings, store, app[INSTALLED], inspector.examples)
        app[CHECKS] = Checks(settings, store, app[JOBS].models, inspector)
        stack.push_async_callback(app[JOBS].close)
        _observe(app)
        await app[JOBS].start()
        sweeping = asyncio.create_task(store.sweep())
        stack.callback(sweeping.cancel)
        yield


def _observe(app: web.Application) -> None:
    """Add readiness and gauges, under the older service's names where it had them."""
    settings, registry, store = app[SETTINGS], app[METRICS].registry, app[MODELS].store
    registry.register(JobMetrics(app[JOBS].live))
    running = Gauge("locex_jobs_running", "Jobs that have a worker.", registry=registry)
    running.set_function(lambda: app[JOBS].running)
    waiting = Gauge("locex_jobs_waiting", "Jobs in the queue.", registry=registry)
    waiting.set_function(lambda: app[JOBS].waiting)
    storage = Gauge("machine_capabilities_free_storage", "Free storage, in GiB.", registry=registry)
    storage.set_function(lambda: machine.free_storage(settings.state_folder))
    memory = Gauge("machine_capabilities_free_memory", "Free memory, in GiB.", registry=registry)
    memory.set_function(machine.free_memory)
    gpu = Gauge("machine_capabilities_gpu", "Whether the machine has a GPU.", registry=registry)
    gpu.set_function(lambda: float(machine.has_gpu()))

    async def store_answers() -> None:
        await store.list_jobs(limit=1)

    app[READINESS].add("store", store_answers)
