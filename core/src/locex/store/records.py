"""Records of jobs and models as JSON text, brought up to date when they are read; the same in every store."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from locex.errors import StoreUnavailable
from locex.schemas.model import StoredModel
from locex.schemas.record import JobRecord

CURRENT: int = JobRecord.model_fields["version"].default
CURRENT_MODEL = 1

Migration = Callable[[dict[str, Any]], dict[str, Any]]

MIGRATIONS: Mapping[int, Migration] = {}
"""Of jobs, by version: the step from a record of that version to one of the next."""

MODEL_MIGRATIONS: Mapping[int, Migration] = {}
"""Of models, likewise."""

DIGEST = re.compile(r"[0-9a-f]{64}")
"""What names a blob: its sha256."""


def dump_job(record: JobRecord) -> str:
    """Return the record as JSON; NaN and infinities become strings, which float fields read back."""
    return _dump(record, {})


def load_job(text: str | bytes) -> JobRecord:
    """Return the record, migrated step by step; raise `StoreUnavailable` for one that a newer locex wrote."""
    content: dict[str, Any] = json.loads(text)
    what = f"the record of run {content['run_id']!r}"
    return JobRecord.model_validate(_migrated(content, what, CURRENT, MIGRATIONS))


def dump_model(model: StoredModel) -> str:
    """Return the model's metadata as JSON."""
    return _dump(model, {"version": CURRENT_MODEL})


def load_model(text: str | bytes) -> StoredModel:
    """Return the model's metadata, migrated likewise; what has no version is of the first."""
    content: dict[str, Any] = {"version": 1} | json.loads(text)
    what = f"the record of model {content['model_name']!r} {content['model_version']!r}"
    return StoredModel.model_validate(_migrated(content, what, CURRENT_MODEL, MODEL_MIGRATIONS))


def digests_of(record: JobRecord | StoredModel) -> list[str]:
    """Return the blobs that a model, or the final model of a job, refers to."""
    content = record.model if isinstance(record, JobRecord) else record.model_dump()
    return sorted(set(DIGEST.findall(to_json(content).decode())))


def _dump(record: BaseModel, more: dict[str, Any]) -> str:
    # Over plain values: on a model, the model's own setting would win and write null, which a float field refuses.
    return to_json(more | record.model_dump(), inf_nan_mode="strings").decode()


def _migrated(content: dict[str, Any], what: str, current: int, migrations: Mapping[int, Migration]) -> dict[str, Any]:
    if content["version"] > current:
        raise StoreUnavailable(
            f"{what} has version {content['version']}, this locex reads up to {current}",
            remedy="upgrade locex-core to the version that wrote it, or use another store",
        )
    while content["version"] < current:
        content = migrations[content["version"]](content)
    return content
