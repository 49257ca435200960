"""Schedulers whose factors users write as expressions of the epoch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from locex_torch_builder.arguments import listed
from locex_torch_builder.schedulers.base import EpochConfig, TorchScheduler
from locex_torch_builder.schedulers.expression import parse


def _of_epoch(text: str) -> str:
    parse(text)
    return text


Expression = Annotated[str, AfterValidator(_of_epoch)]
Expressions = Annotated[
    list[Expression], Field(min_length=1), BeforeValidator(listed, json_schema_input_type=str | list[str])
]


class FactorConfig(EpochConfig):
    """Fields of ``torch.optim.lr_scheduler.LambdaLR`` and ``MultiplicativeLR``."""

    lr_lambda: Expressions = Field(
        default=["1"],
        description="An expression of epoch, e.g. 0.95 ** epoch; or one for every group of parameters.",
    )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments with functions for the expressions."""
        functions = [parse(text) for text in self.lr_lambda]
        return super().arguments() | {"lr_lambda": functions[0] if len(functions) == 1 else functions}


class LambdaLR(TorchScheduler):
    """The rate is the first one times a factor of the epoch: ``torch.optim.lr_scheduler.LambdaLR``."""

    torch_name = "LambdaLR"
    config_model = FactorConfig


class MultiplicativeLR(TorchScheduler):
    """The rate is the last one times a factor of the epoch: ``torch.optim.lr_scheduler.MultiplicativeLR``."""

    torch_name = "MultiplicativeLR"
    config_model = FactorConfig
