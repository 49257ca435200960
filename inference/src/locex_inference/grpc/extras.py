"""The methods of the protocol for shared memory, traces and logs."""

from __future__ import annotations

from typing import Any

from locex.web.routes import Scope
from locex_inference.grpc.calls import Method
from locex_inference.grpc.infer import parameters_of
from locex_inference.grpc.messages import message
from locex_inference.grpc.models import method
from locex_inference.grpc.parts import Parts
from locex_inference.shared_memory import refuse_cuda


def methods(parts: Parts) -> list[Method]:
    """Return the methods. To register memory is the operator's right: the service would open it with its own."""
    memory, settings = _Memory(parts), _Settings(parts)
    return [
        method("SystemSharedMemoryStatus", Scope.READ, memory.status),
        method("SystemSharedMemoryRegister", Scope.ADMIN, memory.register),
        method("SystemSharedMemoryUnregister", Scope.ADMIN, memory.unregister),
        method("CudaSharedMemoryStatus", Scope.READ, memory.cuda_status),
        method("CudaSharedMemoryRegister", Scope.ADMIN, memory.cuda_register),
        method("CudaSharedMemoryUnregister", Scope.ADMIN, memory.cuda_unregister),
        method("TraceSetting", Scope.ADMIN, settings.trace),
        method("LogSettings", Scope.ADMIN, settings.log),
    ]


class _Memory:
    def __init__(self, parts: Parts) -> None:
        self._memory = parts.shared_memory

    def status(self, request: Any) -> Any:
        response = message("inference.SystemSharedMemoryStatusResponse")()
        for region in self._memory.status(request.name):
            found = response.regions[region.name]
            found.name, found.key = region.name, region.key
            found.offset, found.byte_size = region.offset, region.byte_size
        return response

    def register(self, request: Any) -> Any:
        self._memory.register(request.name, request.key, request.offset, request.byte_size)
        return message("inference.SystemSharedMemoryRegisterResponse")()

    def unregister(self, request: Any) -> Any:
        self._memory.unregister(request.name)
        return message("inference.SystemSharedMemoryUnregisterResponse")()

    def cuda_status(self, request: Any) -> Any:
        if request.name:
            raise refuse_cuda()
        return message("inference.CudaSharedMemoryStatusResponse")()

    def cuda_register(self, _: Any) -> Any:
        raise refuse_cuda()

    def cuda_unregister(self, request: Any) -> Any:
        if request.name:
            raise refuse_cuda()
        return message("inference.CudaSharedMemoryUnregisterResponse")()


class _Settings:
    def __init__(self, parts: Parts) -> None:
        self._serving = parts.serving
        self._controls = parts.controls

    def trace(self, request: Any) -> Any:
        model = request.model_name
        if model:
            self._serving.metadata(model)
        changes = {name: list(setting.value) or None for name, setting in request.settings.items()}
        settings = self._controls.set_trace(changes, model)
        response = message("inference.TraceSettingResponse")()
        for name, values in settings.items():
            response.settings[name].value.extend(values)
        return response

    def log(self, request: Any) -> Any:
        settings = self._controls.set_log(parameters_of(request.settings))
        response = message("inference.LogSettingsResponse")()
        for name, value in settings.items():
            if isinstance(value, bool):
                response.settings[name].bool_param = value
            elif isinstance(value, int):
                response.settings[name].uint32_param = value
            else:
                response.settings[name].string_param = value
        return response
