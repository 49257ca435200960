"""Records as JSON text; those of jobs are brought up to date when they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from locex.errors import StoreUnavailable
from locex.schemas.record import JobRecord

CURRENT: int = JobRecord.model_fields["version"].default

Migration = Callable[[dict[str, Any]], dict[str, Any]]

MIGRATIONS: Mapping[int, Migration] = {}
"""By version: the step from a record of that version to one of the next."""


def dump_record(record: BaseModel) -> str:
    """Return the record as JSON; NaN and infinities become strings, which float fields read back."""
    # Over plain values: on a model, the model's own setting would win and write null, which a float field refuses.
    return to_json(record.model_dump(), inf_nan_mode="strings").decode()


def load_record(text: str | bytes) -> JobRecord:
    """Return the record, migrated step by step; raise `StoreUnavailable` for one that a newer locex wrote."""
    content: dict[str, Any] = json.loads(text)
    if content["version"] > CURRENT:
        raise StoreUnavailable(
            f"the record of run {content['run_id']!r} has version {content['version']},"
            f" this locex reads up to {CURRENT}",
            remedy="upgrade locex-core to the version that wrote it, or name another state folder",
        )
    while content["version"] < CURRENT:
        content = MIGRATIONS[content["version"]](content)
    return JobRecord.model_validate(content)
