"""How data looks: what a source declares, every transformation changes, and a model takes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class TensorFormat(BaseModel):
    """One kind of data. Sizes leave out the axis of examples: an MNIST image is ``[28, 28]``, a class index ``[]``."""

    model_config = ConfigDict(extra="allow")

    size: list[int] = Field(description="Sizes of the axes of one example; [] is a scalar. A bare number means [n].")
    dtype: str | None = Field(default=None, description="NumPy name of the element type; not compared where absent.")
    normalized: bool | None = Field(default=None, description="Whether values were scaled.")

    def __init__(self, **content: Any) -> None:
        """Accept ``"size": 10`` for ``[10]``, as older files write it."""
        if isinstance(content.get("size"), int):
            content["size"] = [content["size"]]
        super().__init__(**content)


class SideFormat(BaseModel):
    """The inputs (x) or the targets (y): formats by kind (image, numerical, categorical, tabular, binary, …)."""

    data_types: dict[str, TensorFormat] = Field(description="Formats by kind; the kinds are free-form words.")


class DataFormat(BaseModel):
    """The format of a data set or of what a model takes."""

    x: SideFormat = Field(description="The inputs.")
    y: SideFormat = Field(description="The targets.")

    @classmethod
    def of(cls, x: dict[str, dict[str, Any]], y: dict[str, dict[str, Any]]) -> DataFormat:
        """Build a format from plain dictionaries: ``DataFormat.of({"image": {"size": [28, 28]}}, {…})``."""
        return cls.model_validate({"x": {"data_types": x}, "y": {"data_types": y}})
