"""Schedulers made of schedulers, which are written as configurations within the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from locex.errors import InvalidConfiguration
from locex.schemas.base import validate
from locex.schemas.job import SchedulerChoice
from locex_torch_builder.arguments import Count, moved
from locex_torch_builder.schedulers import cosine, cycles, decay, factors
from locex_torch_builder.schedulers.base import EpochConfig, SchedulerConfig, TorchScheduler

_SIMPLE: dict[str, type[TorchScheduler]] = {
    "lambdalr": factors.LambdaLR,
    "multiplicativelr": factors.MultiplicativeLR,
    "steplr": decay.StepLR,
    "multisteplr": decay.MultiStepLR,
    "constantlr": decay.ConstantLR,
    "linearlr": decay.LinearLR,
    "exponentiallr": decay.ExponentialLR,
    "cosineannealinglr": cosine.CosineAnnealingLR,
    "cosineannealingwarmrestarts": cosine.CosineAnnealingWarmRestarts,
    "cycliclr": cycles.CyclicLR,
    "onecyclelr": cycles.OneCycleLR,
}
"""What both chains take. PyTorch refuses reducelronplateau in them, and its sequences cannot start other chains."""


class Part(SchedulerChoice):
    """A scheduler within another: its name, and its own fields, which its own model validates."""

    known: ClassVar[Mapping[str, type[TorchScheduler]]] = _SIMPLE

    scheduler: str = Field(
        description="The name of a scheduler of this package.", json_schema_extra={"enum": [*_SIMPLE]}
    )
    _config: SchedulerConfig = PrivateAttr()

    @model_validator(mode="after")
    def _validated(self) -> Part:
        if self.scheduler not in self.known:
            names = ", ".join(self.known)
            message = f"no scheduler named {self.scheduler!r} can stand here; those of locex-torch-builder are: {names}"
            raise _invalid([{"path": "/scheduler", "message": message}])
        try:
            self._config = validate(self.known[self.scheduler].config_model, self.fields())
        except InvalidConfiguration as error:
            raise _invalid(error.errors) from None
        self.__pydantic_extra__ = self._config.model_dump(mode="json", exclude_none=True)
        return self

    @property
    def by_batch(self) -> bool:
        """Whether it steps with every batch."""
        if isinstance(self._config, ChainConfig):
            return self._config.schedulers[0].by_batch
        return isinstance(self._config, cycles.CyclicLRConfig | cycles.OneCycleLRConfig)

    def create(self, optimizer: Any) -> Any:
        """Return the scheduler."""
        return self.known[self.scheduler]().locex_create_scheduler(self._config, optimizer)


def _invalid(faults: Sequence[Mapping[str, Any]]) -> ValidationError:
    """Return an error that pydantic places below the part, so that every path is exact."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("scheduler", "{message}", {"message": fault["message"]}),
            loc=tuple(fault["path"].split("/")[1:]),
            input=None,
        )
        for fault in faults
    ]
    return ValidationError.from_exception_data("scheduler", details)


class ChainConfig(SchedulerConfig):
    """What both chains take."""

    schedulers: Sequence[Part]

    @model_validator(mode="after")
    def _at_one_pace(self) -> ChainConfig:
        if len({part.by_batch for part in self.schedulers}) > 1:
            raise ValueError("cycliclr and onecyclelr step with every batch, the others with every epoch: do not mix")
        return self


class SequentialLRConfig(ChainConfig, EpochConfig):
    """Fields of ``torch.optim.lr_scheduler.SequentialLR``."""

    schedulers: list[Part] = Field(min_length=1, description="Configurations of schedulers, one after another.")
    milestones: list[Count] = Field(description="Epochs at which the next one takes over: one less than schedulers.")

    @model_validator(mode="after")
    def _milestones_part_them(self) -> SequentialLRConfig:
        if len(self.milestones) != len(self.schedulers) - 1:
            raise ValueError(f"{len(self.schedulers)} schedulers need {len(self.schedulers) - 1} milestones")
        if any(later <= earlier for earlier, later in pairwise(self.milestones)):
            raise ValueError("milestones must ascend")
        return self


class SequentialLR(TorchScheduler):
    """One scheduler after another: ``torch.optim.lr_scheduler.SequentialLR``."""

    torch_name = "SequentialLR"
    config_model = SequentialLRConfig

    def make(self, config: SchedulerConfig, optimizer: Any) -> Any:
        """Make the parts, then the sequence."""
        from torch.optim import lr_scheduler

        assert isinstance(config, SequentialLRConfig)
        parts = _made(config, optimizer)
        return lr_scheduler.SequentialLR(optimizer, parts, config.milestones, config.last_epoch)


class ChainablePart(Part):
    """A scheduler that acts together with others."""

    known = {**_SIMPLE, "sequentiallr": SequentialLR}  # noqa: RUF012 -- annotated where it is declared

    scheduler: str = Field(
        description="The name of a scheduler of this package.", json_schema_extra={"enum": [*_SIMPLE, "sequentiallr"]}
    )


class ChainedSchedulerConfig(ChainConfig):
    """Fields of ``torch.optim.lr_scheduler.ChainedScheduler``."""

    schedulers: list[ChainablePart] = Field(min_length=1, description="Configurations of schedulers that act together.")


class ChainedScheduler(TorchScheduler):
    """All schedulers together: ``torch.optim.lr_scheduler.ChainedScheduler``."""

    torch_name = "ChainedScheduler"
    config_model = ChainedSchedulerConfig

    def make(self, config: SchedulerConfig, optimizer: Any) -> Any:
        """Make the parts, then the chain."""
        from torch.optim import lr_scheduler

        assert isinstance(config, ChainedSchedulerConfig)
        return lr_scheduler.ChainedScheduler(_made(config, optimizer), optimizer)


def _made(config: ChainConfig, optimizer: Any) -> list[Any]:
    made = []
    for index, part in enumerate(config.schedulers):
        try:
            made.append(part.create(optimizer))
        except InvalidConfiguration as error:
            raise moved(error, f"/scheduler_config/schedulers/{index}") from error
    return made
