"""What the application holds, by typed key."""

from __future__ import annotations

from aiohttp import web

from locex_inference.access_log import AccessLog
from locex_inference.controls import Controls
from locex_inference.http.infer import Inference, Submitting
from locex_inference.models.registry import Registry
from locex_inference.shared_memory import SharedMemory

SERVING: web.AppKey[Submitting] = web.AppKey("serving", Submitting)
INFERENCE: web.AppKey[Inference] = web.AppKey("inference", Inference)
MEMORY: web.AppKey[SharedMemory] = web.AppKey("shared memory", SharedMemory)
REGISTRY: web.AppKey[Registry] = web.AppKey("registry", Registry)
CONTROLS: web.AppKey[Controls] = web.AppKey("controls", Controls)
ACCESS_LOG: web.AppKey[AccessLog] = web.AppKey("access log", AccessLog)
MODEL_LIMIT: web.AppKey[int] = web.AppKey("bytes of a load request", int)
