"""Running the service: HTTP and gRPC on one event loop, and the order in which their parts begin and end."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import uvloop
from aiohttp import web

from locex.errors import LocexError
from locex.plugins.catalog import read_catalog
from locex.web.auth import ACCESS, access_of
from locex.web.health import READINESS
from locex.web.metrics import METRICS
from locex.web.serve import serve, tls_of
from locex_inference.access_log import AccessLog
from locex_inference.controls import Controls
from locex_inference.engine.engine import Engine
from locex_inference.following.beginning import following
from locex_inference.following.routes import FOLLOWER
from locex_inference.grpc.parts import Parts
from locex_inference.grpc.server import GrpcServer, Limits, start
from locex_inference.http.app import make_app
from locex_inference.http.connections import FastSite
from locex_inference.http.infer import Inference
from locex_inference.http.keys import CONTROLS, INFERENCE, MEMORY, MODEL_LIMIT, REGISTRY, SERVING
from locex_inference.inferencers.remote import Terms
from locex_inference.metrics import ModelMetrics
from locex_inference.models.configmap import read_configured_model
from locex_inference.models.loading import Conditions, Loader
from locex_inference.models.registry import Registry
from locex_inference.models.repository import ModelFolder
from locex_inference.models.serving_folder import ModelRepository
from locex_inference.service import Service
from locex_inference.settings import InferenceSettings
from locex_inference.shared_memory import SharedMemory
from locex_inference.tracing import Tracing

SETTINGS: web.AppKey[InferenceSettings] = web.AppKey("settings", InferenceSettings)

_BASE64 = 4 / 3
_BESIDE = 1 << 20
"""Bytes of a load request beside its files."""


def run(settings: InferenceSettings) -> int:
    """Serve until a signal; return the exit code."""
    try:
        app = init_app(settings)
    except LocexError as error:
        sys.stderr.write(f"error: {error.message}" + (f" ({error.remedy})" if error.remedy else "") + "\n")
        return 1
    return serve(
        app,
        host=settings.host,
        port=settings.port,
        tls=tls_of(settings),
        site=FastSite,
        loop=uvloop.new_event_loop,
        auto_decompress=False,  # bounded in `locex_inference.http.compression`
        handler_cancellation=True,  # a request whose caller has gone does not run
    )


def init_app(settings: InferenceSettings) -> web.Application:
    """Return the application; raise `InvalidConfiguration` where it would be open to everybody."""
    app = make_app(access_of(settings), settings.max_body_mb << 20)
    app[SETTINGS] = settings
    app[CONTROLS] = Controls()
    app[MEMORY] = SharedMemory(enabled=settings.shared_memory)
    app[MODEL_LIMIT] = int((settings.max_model_mb << 20) * _BASE64) + _BESIDE
    app.cleanup_ctx.append(_life)
    return app


async def _life(app: web.Application) -> AsyncIterator[None]:
    settings, controls, memory = app[SETTINGS], app[CONTROLS], app[MEMORY]
    registry = Registry()
    app[REGISTRY] = registry
    engine = Engine(registry, batching=settings.micro_batching, waiting_bytes=settings.max_waiting_mb << 20)
    folder = folder_of(settings)
    loader = Loader(registry, conditions_of(settings))
    required = settings.required_models or folder.models()
    service = app[SERVING] = Service(registry, engine, ModelRepository(loader, folder), required)
    tracing, log = Tracing(controls, on=settings.tracing), AccessLog(settings.access_log)
    if settings.tracing:
        controls.set_trace({"trace_level": ["TIMESTAMPS"], "trace_rate": ["1"]})
    app[INFERENCE] = Inference(service, memory, tracing, log, settings.max_body_mb << 20)
    ModelMetrics(registry, app[METRICS].registry)
    app[READINESS].add("models", service.check)
    grpc = await _start_grpc(settings, app, Parts(service, memory, controls, tracing, log)) if settings.grpc else None
    service.begin()
    follower = following(settings, loader, folder, app[METRICS].registry)
    if follower is not None:
        app[FOLLOWER] = follower
        follower.begin()
    yield
    if follower is not None:
        await follower.close()
    if grpc is not None:
        await grpc.stop(settings.stop_grace)
    await service.close()
    await loader.close()
    engine.close()
    memory.close()


def folder_of(settings: InferenceSettings) -> ModelFolder:
    """Return the folder of models with what the ConfigMap says; raise `InvalidConfiguration`."""
    configured = read_configured_model(settings.configuration_folder) if settings.configuration_folder else None
    return ModelFolder(settings.models_folder, configured)


def conditions_of(settings: InferenceSettings) -> Conditions:
    """Return how the settings ask models to be loaded."""
    return Conditions(
        steps_in_process=frozenset(settings.steps_in_process),
        threads=settings.threads,
        memory_mb=settings.model_memory_mb,
        allow_programs=settings.allow_programs,
        folder=settings.state_folder / "models",
        terms=Terms(settings.worker_python, settings.load_timeout, settings.call_timeout, settings.arrays_mb << 20),
        catalog=lambda: read_catalog(settings.policy, settings.plugin_folders),
    )


async def _start_grpc(settings: InferenceSettings, app: web.Application, parts: Parts) -> GrpcServer:
    server = await start(
        parts,
        host=settings.host,
        port=settings.grpc_port,
        tokens=app[ACCESS].tokens,
        tls=tls_of(settings),
        limits=Limits(settings.max_body_mb << 20),
    )
    sys.stdout.write(f"gRPC is listening on {settings.host}:{server.port}\n")
    sys.stdout.flush()
    return server
