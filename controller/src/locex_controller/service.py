"""The collector as a service: its application, and its life from the folder's lock to the end of every training."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from importlib.metadata import version

from aiohttp import web

from locex.store.lock import FolderLock
from locex.store.opening import chosen_store
from locex.web.app import create_app
from locex.web.auth import access_of
from locex.web.models import MODELS, ModelStore, model_routes
from locex.web.serve import serve_as
from locex_controller import routes
from locex_controller.collector import Collector
from locex_controller.document import TrainingSchema
from locex_controller.routes import COLLECTOR
from locex_controller.settings import CollectorSettings


def run(settings: CollectorSettings) -> int:
    """Serve until a signal; return the exit code."""
    with FolderLock(settings.state_folder):
        return serve_as(settings, init_app(settings))


def init_app(settings: CollectorSettings) -> web.Application:
    """Return the application; raise `InvalidConfiguration` where it would be open to everybody."""
    app = create_app(
        [routes.routes, *model_routes(created=HTTPStatus.CREATED)],
        title="locex Training Collector",
        version=version("locex-controller"),
        description="Runs the server's side of federated trainings, one process for each.",
        access=access_of(settings),
        extension=TrainingSchema(),
    )
    store = chosen_store(settings)
    app[COLLECTOR] = Collector(settings, store)
    app[MODELS] = ModelStore(store, settings.max_model_mb * 2**20)
    app.cleanup_ctx.append(_life)
    return app


async def _life(app: web.Application) -> AsyncIterator[None]:
    collector = app[COLLECTOR]
    await collector.store.open()
    await collector.open()
    sweeping = asyncio.create_task(collector.store.sweep())
    yield
    sweeping.cancel()
    await collector.close()
    await collector.store.close()
