"""What a job leaves open is filled in from the site: settings, and the ConfigMap files as they are written today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from locex.errors import InvalidConfiguration
from locex.schemas.data_format import DataFormat
from locex.schemas.job import DataChoice, JobConfiguration, OptimizerChoice, Pipelines, TransformStep
from locex.settings import SiteSettings


class _Loader(BaseModel):
    id: str
    parameters: dict[str, Any] = {}


class _Setup(BaseModel):
    data_loader: str | _Loader | None = None


_BASE = "base"
_SETUP = TypeAdapter(_Setup)
_STEPS = TypeAdapter(list[TransformStep])
_FORMAT = TypeAdapter(DataFormat)

ValidT = TypeVar("ValidT")


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


def bypass(job: JobConfiguration, library: str, site: SiteSettings) -> tuple[JobConfiguration, list[str]]:
    """Return a test job (``client_type_id`` "base") with plain files instead of data source and pipelines."""
    if job.client_type_id != _BASE or library != site.base_library:
        return job, []
    plain = job.model_copy(update={"data": DataChoice(source=site.base_source), "transformations": Pipelines()})
    warning = f"client_type_id is base: data source {site.base_source!r} is read, without transformations"
    return plain, [warning]


def data_of(site: SiteSettings) -> DataChoice:
    """Return the site's data source: ``data_loader`` of setup.json, else the setting."""
    setup = _valid(_SETUP, _read(site, "setup.json") or {}, "setup.json")
    loader = setup.data_loader or site.data_source
    if isinstance(loader, str):
        return DataChoice(source=loader)
    return DataChoice.model_validate(loader.parameters | {"source": loader.id})


def pipelines_of(site: SiteSettings) -> Pipelines:
    """Return the site's pipelines."""
    return Pipelines(train=_steps(site, "train"), test=_steps(site, "test"))


def format_of(site: SiteSettings) -> DataFormat | None:
    """Return the format that the site's file states, if there is one."""
    content = _read(site, site.data_format_file)
    return None if content is None else _valid(_FORMAT, content, site.data_format_file)


def model_format_of(site: SiteSettings) -> DataFormat | None:
    """Return the format that the site says its model takes (model.json), if it does."""
    content = _read(site, "model.json")
    if content is None or (isinstance(content, dict) and "x" not in content):  # the inference service has one too
        return None
    return _valid(_FORMAT, content, "model.json")


def _steps(site: SiteSettings, side: str) -> list[TransformStep]:
    name = f"transformation_pipeline_{side}.json"
    return _valid(_STEPS, _read(site, name) or [], name)


def _valid(adapter: TypeAdapter[ValidT], content: Any, name: str) -> ValidT:
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        faults = (f"/{'/'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_url=False))
        raise _unusable(name, "; ".join(faults)) from None


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
