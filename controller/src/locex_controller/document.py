"""The part of the OpenAPI document that routes cannot say: the schema of a training."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from locex.schemas.base import schema_of
from locex_controller.request import TrainingRequest

REFERENCE = "#/components/schemas/{model}"
TRAINING = {"$ref": REFERENCE.format(model="TrainingRequest")}


class TrainingSchema:
    """Adds the schemas that `TRAINING` refers to."""

    async def key(self) -> Hashable:
        """Return a constant: the schema never changes."""
        return None

    async def extend(self, document: dict[str, Any]) -> None:
        """Add the schemas."""
        schema = schema_of(TrainingRequest, ref_template=REFERENCE)
        document["components"]["schemas"] |= {**schema.pop("$defs", {}), "TrainingRequest": schema}
