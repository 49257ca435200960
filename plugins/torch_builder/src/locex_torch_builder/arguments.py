"""Configurations whose fields are the arguments of one of PyTorch's constructors; this module imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from locex.errors import InvalidConfiguration
from locex.schemas.plugin import PluginConfig

Count = Annotated[int, Field(gt=0, lt=2**31)]


def listed(value: Any) -> Any:
    """Return the value as a list: one stands for a list of one."""
    return value if isinstance(value, list | tuple) else [value]


PerGroup = Annotated[
    list[float],
    Field(min_length=1),
    BeforeValidator(listed, json_schema_input_type=float | list[float]),
]
"""A number for every group of parameters, or one that holds for all."""

REFUSALS = (ValueError, TypeError, RuntimeError, ArithmeticError, AssertionError, KeyError)
"""What PyTorch raises for arguments that it does not take."""


class Arguments(PluginConfig):
    """Arguments by PyTorch's names; some have a second name."""

    per_group: ClassVar[tuple[str, ...]] = ()
    """Fields of which one value holds for every group of parameters."""

    def arguments(self) -> dict[str, Any]:
        """Return the arguments as PyTorch takes them."""
        fields = self.model_dump()
        for name in self.per_group:
            if isinstance(fields[name], list) and len(fields[name]) == 1:
                fields[name] = fields[name][0]
        return fields


def moved(error: InvalidConfiguration, to: str) -> InvalidConfiguration:
    """Return a scheduler's error with its paths below another place of the job's configuration."""
    faults = [fault | {"path": fault["path"].replace("/scheduler_config", to, 1)} for fault in error.errors]
    return InvalidConfiguration(error.message, remedy=error.remedy, errors=faults)


def refused(error: Exception, *, what: str, place: str, path: str) -> InvalidConfiguration:
    """Return the error for arguments that PyTorch refused; ``place``: the class whose documentation tells more."""
    reason = f"{type(error).__name__} {error}" if isinstance(error, KeyError | AssertionError) else str(error)
    return InvalidConfiguration(
        f"PyTorch refuses the {what}'s fields: {reason}",
        remedy=f"see torch.optim.{place}",
        errors=[{"path": path, "message": reason}],
    )
