"""What every data source lets users say: the split, filters, bounds, and the format."""

from __future__ import annotations

from pydantic import Field

from locex.errors import DataUnavailable
from locex.schemas.data_format import DataFormat, SideFormat
from locex.schemas.plugin import PluginConfig
from locex_transforms.sources.filters import Filter

MIB = 2**20


class SourceConfig(PluginConfig):
    """The fields that all sources share."""

    test_fraction: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Share of the training examples that becomes test data if there are no test files; 0: they must.",
    )
    stratify: bool = Field(
        default=False, description="Whether the split keeps every class's share; for targets of one class index."
    )
    seed: int | None = Field(default=None, ge=0, description="Seed of the split; absent: the job's.")
    filters: list[Filter] = Field(
        default=[], description="Conditions on examples; those that do not meet all of them are left out."
    )
    in_memory: float = Field(
        default=128,
        ge=0,
        description="MiB up to which an array is kept in memory; larger ones become memory-mapped files.",
    )
    format: DataFormat | None = Field(
        default=None, description="The format, declared: data of other sizes or types are refused, its kinds are told."
    )
    x_kind: str | None = Field(default=None, description="Kind of the inputs, instead of the one that ranks tell.")
    y_kind: str | None = Field(default=None, description="Kind of the targets, instead of the one that types tell.")

    @property
    def limit(self) -> int:
        """Bytes up to which an array is kept in memory."""
        return int(self.in_memory * MIB)


def hold_against(found: DataFormat, declared: DataFormat | None) -> DataFormat:
    """Return the declared format, completed by the types found; raise `DataUnavailable` where data differ from it."""
    if declared is None:
        return found
    sides = {side: _held(side, getattr(found, side), getattr(declared, side)) for side in ("x", "y")}
    return declared.model_copy(update=sides)


def _held(side: str, found: SideFormat, declared: SideFormat) -> SideFormat:
    ((_, have),) = found.data_types.items()
    if len(declared.data_types) != 1:
        return declared  # several kinds share the array
    ((kind, want),) = declared.data_types.items()
    if have.size != want.size or (want.dtype is not None and have.dtype is not None and have.dtype != want.dtype):
        raise DataUnavailable(
            f"{side} has size {have.size} and type {have.dtype}, "
            f"but the declared format has size {want.size} and type {want.dtype}",
            remedy="correct the format of the data source, or the data",
        )
    return SideFormat(data_types={kind: want.model_copy(update={"dtype": want.dtype or have.dtype})})
