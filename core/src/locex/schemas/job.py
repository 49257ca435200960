"""The job configuration: every field of the public description, with its rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from locex.errors import InvalidConfiguration
from locex.schemas.base import Configuration, validate
from locex.schemas.model import Name


def _has_a_port(address: str) -> str:
    port = address.rpartition("]")[2].partition(":")[2]
    if port and not 0 < int(port) < 2**16:
        raise ValueError("a port is a number from 1 to 65535")
    return address


Address = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?$"),
    AfterValidator(_has_a_port),
]
Positive = Annotated[int, Field(gt=0)]


class TrainConfig(Configuration):
    """How one round trains; the server's fit configuration chooses an entry by ``config_id``, else the first."""

    config_id: str = Field(default="default", description="The name by which a fit configuration chooses this entry.")
    batch_size: Positive = Field(default=32, description="Examples per step.")
    steps_per_epoch: Positive | None = Field(default=None, description="Steps per epoch; all of the data if absent.")
    epochs: Positive = Field(default=1, description="Passes per round.")
    learning_rate: float | None = Field(
        default=None, gt=0, description="The learning rate if optimizer_config names none."
    )


class Chosen(BaseModel):
    """A plugin by name together with the plugin's own fields, which its own model validates."""

    model_config = ConfigDict(extra="allow")

    def fields(self) -> dict[str, Any]:
        """Return the plugin's own fields: those given and not null."""
        return {key: value for key, value in (self.model_extra or {}).items() if value is not None}


class OptimizerChoice(Chosen):
    """The optimizer's name and its arguments."""

    optimizer: str = Field(description="A name of the group locex.optimizer without its library, e.g. adam.")


class SchedulerChoice(Chosen):
    """The scheduler's name and its arguments."""

    scheduler: str = Field(description="A name of the group locex.scheduler without its library, e.g. steplr.")


class WarmupConfig(Configuration):
    """A linear warm-up of the learning rate, then ``scheduler_conf`` (PyTorch)."""

    scheduler: str | None = Field(default=None, description="The kind of warm-up; linear is the only one.")
    warmup_iters: Positive | None = Field(default=None, description="Steps of warm-up per training.")
    warmup_epochs: Positive | None = Field(
        default=None, description="Epochs of warm-up per training, where warmup_iters is absent."
    )
    warmup_factor: float = Field(default=0.001, gt=0, le=1, description="The learning rate starts at this share.")
    scheduler_conf: SchedulerChoice | None = Field(
        default=None, description="The scheduler after the warm-up, instead of scheduler_config."
    )

    @model_validator(mode="after")
    def _has_a_length(self) -> WarmupConfig:
        if self.warmup_iters is None and self.warmup_epochs is None:
            raise ValueError("a warm-up needs warmup_iters or warmup_epochs")
        return self


class TransformStep(Configuration):
    """One step of a pipeline, as the ConfigMap files write it."""

    id: str = Field(description="A name of the group locex.transform.")
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("parameters", "params"),
        description="The step's own fields.",
    )


class Pipelines(Configuration):
    """The transformations of this job, instead of the site's."""

    train: list[TransformStep] = Field(default_factory=list, description="Steps for training data, in order.")
    test: list[TransformStep] = Field(default_factory=list, description="Steps for test data, in order.")


class DataChoice(Chosen):
    """The data source of this job, instead of the site's."""

    source: str = Field(description="A name of the group locex.data, e.g. npy.")


class Resources(Configuration):
    """Bounds of this job, within the site's."""

    memory_mb: Positive | None = Field(default=None, description="The worker is ended beyond this memory, in MiB.")
    round_timeout: float | None = Field(default=None, gt=0, description="A round may take this long, in seconds.")


class Export(Configuration):
    """What is kept at the end."""

    model_version: Name | None = Field(default=None, description="Version of the trained model in the store.")
    formats: list[str] = Field(default_factory=lambda: ["safetensors"], description="safetensors, onnx.")
    each_round: bool = Field(
        default=False,
        description="Keep the global model of every evaluated round too, until that of the next: inference follows it.",
    )


class JobConfiguration(Configuration):
    """A training job, as ``POST /job/config/{training_id}/`` takes it."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=(), title="JobConfiguration")

    training_id: str | None = Field(
        default=None, description="The training; agrees with the path where both are given."
    )
    client_type_id: str | None = Field(
        default=None,
        description='The client\'s id in records, metrics and the federation; "base" bypasses, for PyTorch models, the '
        "site's data source and pipelines: plain npy files are trained on, for testing.",
    )
    server_address: Address = Field(description="Host of the Flower server; without a port FEDERATED_PORT is taken.")
    eval_func: str | None = Field(default=None, description="The loss, e.g. categorical_crossentropy.")
    eval_metrics: list[str] = Field(default_factory=list, description="Metrics of evaluations, e.g. accuracy.")
    num_classes: Positive | None = Field(default=None, description="Classes; checked against data and model.")
    num_rounds: Positive | None = Field(
        default=None,
        validation_alias=AliasChoices("num_rounds", "number_of_rounds"),
        description="The node takes part in no more rounds than this.",
    )
    shape: list[int] | None = Field(default=None, description="Sizes of one input; checked against data and model.")
    model_name: Name = Field(description="The model in the node's store or the FL Repository.")
    model_version: Name = Field(description="Its version.")
    config: list[TrainConfig] = Field(default_factory=lambda: [TrainConfig()], min_length=1, description="Trainings.")
    optimizer_config: OptimizerChoice | None = Field(default=None, description="Optimizer; absent: sgd.")
    scheduler_config: SchedulerChoice | None = Field(default=None, description="Learning-rate scheduler or callback.")
    warmup_config: WarmupConfig | None = Field(default=None, description="Warm-up before the scheduler.")
    builder: dict[str, Any] = Field(
        default_factory=dict, description="Options of the model's builder: gradient clipping, mixed precision, …."
    )
    privacy_mechanisms: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        alias="privacy-mechanisms",
        description="Mechanisms of the group locex.privacy by name, each with its own fields.",
    )
    data: DataChoice | None = Field(default=None, description="The data source, instead of the site's.")
    transformations: Pipelines | None = Field(default=None, description="Pipelines, instead of the site's.")
    federation: str | None = Field(default=None, description="A name of the group locex.federation.")
    resources: Resources = Field(default_factory=Resources, description="Bounds of this job.")
    export: Export = Field(default_factory=Export, description="What is kept at the end.")
    seed: int | None = Field(default=None, ge=0, lt=2**32, description="Seed of shuffling and initial weights.")

    @field_validator("training_id", mode="before", json_schema_input_type=str | int | None)
    @classmethod
    def _number_or_string(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("shape")
    @classmethod
    def _positive_sizes(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and any(size <= 0 for size in value):
            raise ValueError("sizes must be positive")
        return value


def chosen_training(trainings: Sequence[TrainConfig], config: Mapping[str, Any]) -> TrainConfig:
    """Return the entry that a server's fit configuration chooses by ``config_id``, else the first."""
    chosen = config.get("config_id")
    return next((entry for entry in trainings if entry.config_id == chosen), trainings[0])


def parse_job(content: dict[str, Any]) -> tuple[JobConfiguration, list[str]]:
    """Validate a job; return it with warnings that name the top-level keys which were ignored.

    One that is meant for ``privacy-mechanisms`` is refused: ignored, it would train without any.
    """
    known = {"number_of_rounds"}
    for name, field in JobConfiguration.model_fields.items():
        known |= {name, field.alias or name}
    ignored = sorted(set(content) - known)
    if misspelt := [key for key in ignored if key.lower().startswith("privacy")]:
        raise InvalidConfiguration(
            f"unknown key {misspelt[0]!r}: without privacy-mechanisms a job has none",
            remedy="write privacy-mechanisms",
            errors=[{"path": f"/{key}", "message": "unknown key"} for key in misspelt],
        )
    warnings = [f"unknown key {key!r} was ignored" for key in ignored]
    return validate(JobConfiguration, {key: content[key] for key in content if key in known}), warnings
