"""What a job leaves open is filled in from the site: settings, and the ConfigMap files as they are written today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from locex.errors import InvalidConfiguration
from locex.schemas.data_format import DataFormat
from locex.schemas.job import DataChoice, JobConfiguration, OptimizerChoice, Pipelines, TransformStep
from locex.settings import SiteSettings

_STEPS = TypeAdapter(list[TransformStep])


def fill_in(job: JobConfiguration, site: SiteSettings) -> tuple[JobConfiguration, list[str]]:
    """Return the job with every choice made, and warnings about defaults that users may not expect."""
    warnings = []
    if job.optimizer_config is None:
        warnings.append(f"optimizer_config is absent: {site.optimizer} with its defaults is used")
    server_address = job.server_address
    if not server_address.rpartition("]")[2].count(":"):
        server_address = f"{server_address}:{site.federated_port}"
    filled = job.model_copy(
        update={
            "server_address": server_address,
            "optimizer_config": job.optimizer_config or OptimizerChoice(optimizer=site.optimizer),
            "data": job.data or data_of(site),
            "transformations": job.transformations or pipelines_of(site),
            "federation": job.federation or site.federation,
        }
    )
    return filled, warnings


def data_of(site: SiteSettings) -> DataChoice:
    """Return the site's data source: ``data_loader`` of setup.json, else the setting."""
    setup = _read(site, "setup.json") or {}
    loader: Any = setup.get("data_loader") or site.data_source
    fields: dict[str, Any] = loader if isinstance(loader, dict) else {"id": loader}
    return DataChoice(source=str(fields["id"]), **fields.get("parameters", {}))


def pipelines_of(site: SiteSettings) -> Pipelines:
    """Return the site's pipelines."""
    return Pipelines(train=_steps(site, "train"), test=_steps(site, "test"))


def format_of(site: SiteSettings) -> DataFormat | None:
    """Return the format that the site's file states, if there is one."""
    content = _read(site, site.data_format_file)
    return None if content is None else _format(content, site.data_format_file)


def model_format_of(site: SiteSettings) -> DataFormat | None:
    """Return the format that the site says its model takes (model.json), if it does."""
    content = _read(site, "model.json")
    return None if content is None or "x" not in content else _format(content, "model.json")


def _format(content: Any, name: str) -> DataFormat:
    try:
        return DataFormat.model_validate(content)
    except ValidationError as error:
        raise _unusable(name, str(error)) from None


def _steps(site: SiteSettings, side: str) -> list[TransformStep]:
    name = f"transformation_pipeline_{side}.json"
    try:
        return _STEPS.validate_python(_read(site, name) or [])
    except ValidationError as error:
        raise _unusable(name, str(error)) from None


def _read(site: SiteSettings, name: str) -> Any:
    if site.configuration_folder is None:
        return None
    path = Path(site.configuration_folder, name)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unusable(name, str(error)) from None


def _unusable(name: str, reason: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"the site's file {name} cannot be used: {reason}", remedy="ask the operator to repair it"
    )
