"""Dry runs of a job's formats (``POST /format/check``), asked of an inspect process."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import ConfigDict, Field, model_validator

from locex.jobs.questions import CheckQuestion, FormatVerdict, Model
from locex.jobs.repository import Models
from locex.jobs.site import bypass, fill_in, model_format_of
from locex.schemas.base import Configuration, validate
from locex.schemas.job import DataChoice, JobConfiguration, Pipelines, Positive
from locex.schemas.model import ModelMetadata, Name
from locex.settings import NodeSettings
from locex.store.protocol import Store
from locex_server.inspector import Inspector

_NO_SERVER = "none:1"  # a dry run joins no federation
_NO_MODEL = "none"


class FormatCheck(Configuration):
    """What is to be checked: those fields of a job that have to do with formats. A whole job is taken too."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=(), title="FormatCheck")

    model_name: Name | None = Field(default=None, description="The model; absent: only source and pipelines.")
    model_version: Name | None = Field(default=None, description="Its version.")
    client_type_id: str | None = Field(default=None, description='"base": plain files without transformations.')
    data: DataChoice | None = Field(default=None, description="The data source, instead of the site's.")
    transformations: Pipelines | None = Field(default=None, description="Pipelines, instead of the site's.")
    num_classes: Positive | None = Field(default=None, description="Classes; checked against the model.")
    shape: list[int] | None = Field(default=None, description="Sizes of one input; checked against the data.")
    eval_func: str | None = Field(default=None, description="The loss, which some builders hold against targets.")
    builder: dict[str, Any] = Field(default_factory=dict, description="Options of the model's builder.")

    @model_validator(mode="after")
    def _whole_name(self) -> FormatCheck:
        if (self.model_name is None) != (self.model_version is None):
            raise ValueError("model_name and model_version go together")
        return self


class Checks:
    """Verdicts over the site's data and the node's models."""

    def __init__(self, settings: NodeSettings, store: Store, models: Models, inspector: Inspector) -> None:
        self._settings = settings
        self._store = store
        self._models = models
        self._inspector = inspector

    async def verdict(self, check: FormatCheck) -> FormatVerdict:
        """Return whether the formats go together; raise what is wrong with the plugins or the model's bytes."""
        question, warnings = await self._question(check)
        found = FormatVerdict.model_validate(await self._inspector.ask(question, _named(question)))
        return found.model_copy(update={"warnings": [*warnings, *found.warnings]})

    async def _question(self, check: FormatCheck) -> tuple[CheckQuestion, list[str]]:
        given = check.model_dump(exclude_none=True) | {"server_address": _NO_SERVER}
        job = validate(JobConfiguration, {"model_name": _NO_MODEL, "model_version": _NO_MODEL} | given)
        job, _ = await asyncio.to_thread(fill_in, job, self._settings)
        model: Model | None = None
        warnings: list[str] = []
        if check.model_name is not None and check.model_version is not None:
            model = await self._model(check.model_name, check.model_version)
            job, warnings = bypass(job, model.metadata.meta.library, self._settings)
        declared = await asyncio.to_thread(model_format_of, self._settings)
        versions = await self._models.versions()
        return CheckQuestion(job=job, model=model, declared=declared, models=versions), warnings

    async def _model(self, name: str, version: str) -> Model:
        stored = await self._models.fetch(await self._models.metadata(name, version))
        path = await self._store.blob_path(str(stored.digest))
        metadata = ModelMetadata.model_validate(stored.model_dump())
        return Model(path=str(path), digest=str(stored.digest), metadata=metadata)


def _named(question: CheckQuestion) -> str:
    """Return the plugins in question, for an error that cannot know which of them it was."""
    job = question.job
    assert job.data is not None
    assert job.transformations is not None
    steps = dict.fromkeys(step.id for step in (*job.transformations.train, *job.transformations.test))
    library = [f"builder {question.model.metadata.meta.library}"] if question.model else []
    return ", ".join([f"data {job.data.source}", *(f"transform {name}" for name in steps), *library])
