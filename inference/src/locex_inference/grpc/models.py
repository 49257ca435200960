"""The methods of the protocol that tell of the server and its models, load and unload them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from google.protobuf.json_format import ParseDict

from locex.web.routes import Scope
from locex_inference.errors import InvalidInference, NotReady, UnknownServed
from locex_inference.grpc.calls import Method, unary
from locex_inference.grpc.infer import parameters_of
from locex_inference.grpc.messages import message
from locex_inference.grpc.parts import Parts
from locex_inference.serving import EXTENSIONS, NAME, Duration, Statistics

_SERVICE = "inference.GRPCInferenceService"
_FILE = "file:"


def method(name: str, scope: Scope | None, answer: Callable[[Any], Any]) -> Method:
    """Return a method of the protocol, whose request is named after it."""
    return unary(f"/{_SERVICE}/{name}", scope, message(f"inference.{name}Request"), answer)


def methods(parts: Parts) -> list[Method]:
    """Return the methods."""
    models = _Models(parts)
    return [
        method("ServerLive", None, models.live),
        method("ServerReady", None, models.ready),
        method("ModelReady", Scope.READ, models.model_ready),
        method("ServerMetadata", Scope.READ, models.server_metadata),
        method("ModelMetadata", Scope.READ, models.model_metadata),
        method("ModelConfig", Scope.READ, models.configuration),
        method("ModelStatistics", Scope.READ, models.statistics),
        method("RepositoryIndex", Scope.READ, models.index),
        method("RepositoryModelLoad", Scope.ADMIN, models.load),
        method("RepositoryModelUnload", Scope.ADMIN, models.unload),
    ]


class _Models:
    def __init__(self, parts: Parts) -> None:
        self._serving = parts.serving
        self._version = version("locex-inference")

    def live(self, _: Any) -> Any:
        return message("inference.ServerLiveResponse")(live=self._serving.live())

    def ready(self, _: Any) -> Any:
        return message("inference.ServerReadyResponse")(ready=self._serving.ready())

    def model_ready(self, request: Any) -> Any:
        try:
            ready = self._serving.model_ready(request.name, request.version)
        except (UnknownServed, NotReady):  # as Triton has it: a question that clients ask until the answer is yes
            ready = False
        return message("inference.ModelReadyResponse")(ready=ready)

    def server_metadata(self, _: Any) -> Any:
        return message("inference.ServerMetadataResponse")(name=NAME, version=self._version, extensions=EXTENSIONS)

    def model_metadata(self, request: Any) -> Any:
        served = self._serving.metadata(request.name, request.version)
        response = message("inference.ModelMetadataResponse")(
            name=served.name, versions=served.versions, platform=served.platform
        )
        for tensors, field in ((served.inputs, response.inputs), (served.outputs, response.outputs)):
            for tensor in tensors:
                field.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        return response

    def configuration(self, request: Any) -> Any:
        response = message("inference.ModelConfigResponse")()
        configuration = self._serving.configuration(request.name, request.version)
        ParseDict(configuration, response.config, ignore_unknown_fields=True)
        return response

    def statistics(self, request: Any) -> Any:
        response = message("inference.ModelStatisticsResponse")()
        for statistics in self._serving.statistics(request.name, request.version):
            _fill_statistics(response.model_stats.add(), statistics)
        return response

    def index(self, request: Any) -> Any:
        response = message("inference.RepositoryIndexResponse")()
        for entry in self._serving.index(ready_only=request.ready):
            response.models.add(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        return response

    async def load(self, request: Any) -> Any:
        config, files = _load_parameters(parameters_of(request.parameters))
        await self._serving.load(request.model_name, config, files)
        return message("inference.RepositoryModelLoadResponse")()

    async def unload(self, request: Any) -> Any:
        await self._serving.unload(request.model_name)
        return message("inference.RepositoryModelUnloadResponse")()


def _load_parameters(parameters: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
    """Return the configuration and the files of a load request; raise `InvalidInference`."""
    files = {key.removeprefix(_FILE): value for key, value in parameters.items() if key.startswith(_FILE)}
    if any(not isinstance(content, bytes) for content in files.values()):
        raise InvalidInference("the files of a load request are parameters of the kind bytes_param")
    text = parameters.get("config")
    if text is None:
        return None, files
    try:
        config = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise InvalidInference("the parameter 'config' is no JSON object")
    return config, files


def _fill_statistics(stats: Any, found: Statistics) -> None:
    stats.name, stats.version = found.name, found.version
    stats.last_inference, stats.inference_count, stats.execution_count = found.last, found.inferences, found.executions
    for phase in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        _fill_duration(getattr(stats.inference_stats, phase), getattr(found, phase))
    for size, duration in sorted(found.batches.items()):
        _fill_duration(stats.batch_stats.add(batch_size=size).compute_infer, duration)


def _fill_duration(field: Any, duration: Duration) -> None:
    field.count, field.ns = duration.count, duration.ns
