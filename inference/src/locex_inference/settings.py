"""Settings of the inference service, from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from locex.settings import ServiceSettings, Words, default_state_folder


class InferenceSettings(ServiceSettings):
    """All settings. Names without the prefix LOCEX_ are those of the older inference application."""

    port: int = Field(default=9000, ge=0, le=65535, validation_alias="PORT", description="Port of HTTP.")
    grpc: bool = Field(default=True, description="Serve gRPC too.")
    grpc_port: int = Field(default=50051, ge=0, le=65535, description="Port of gRPC.")
    state_folder: Path = Field(
        default_factory=lambda: default_state_folder() / "inference", description="The service's own state."
    )
    models_folder: Path | None = Field(
        default=None, description="Folder of models: MODEL/VERSION/FILE, and MODEL/model.json with options."
    )
    configuration_folder: Path | None = Field(
        default=None, description="Folder of setup.json, model.json, format.json and the pipelines."
    )
    max_body_mb: int = Field(default=64, gt=0, description="Largest body or gRPC message of a request, in MiB.")
    max_waiting_mb: int = Field(default=512, gt=0, description="Tensors that may wait, over all models, in MiB.")
    required_models: Words = Field(
        default=[], description="Models without which the service is not ready; empty: all of the models folder."
    )
    steps_in_process: Words = Field(
        default=[], description="Transformations that may run in the service's own process; others have their own."
    )
    model_memory_mb: int = Field(default=2048, gt=0, description="Memory of one model's own process, in MiB.")
    arrays_mb: int = Field(
        default=256, gt=0, description="Largest inputs, or outputs, of one call of a model's own process, in MiB."
    )
    load_timeout: float = Field(default=120, gt=0, description="Seconds that loading a model may take.")
    call_timeout: float = Field(default=60, gt=0, description="Seconds that a call of a model's process may take.")
    threads: int = Field(default=1, gt=0, description="Threads of one call of a model that says nothing else.")
    allow_programs: bool = Field(default=True, description="Serve models that are programs: TorchScript, SavedModel.")
    shared_memory: bool = Field(default=False, description="Take tensors in shared memory, from trusted callers.")
    access_log: float = Field(default=0, ge=0, le=1, description="Part of the requests that the access log shows.")
    tracing: bool = Field(default=False, description="Make OpenTelemetry spans; OTEL_… says where they go.")
    micro_batching: bool = Field(default=True, description="Let models join waiting requests, as their options say.")
