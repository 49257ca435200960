"""A job's formats, from its data source to its model, without reading an example or training a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from locex.api import Array, Dataset, LocalData, ModelArtefact, ModelSignature, TensorSpec
from locex.errors import FormatMismatch
from locex.jobs.questions import CheckQuestion, FormatStep, FormatVerdict, Model, Signature, Tensor
from locex.pipelines.trail import Trail, follow
from locex.plugins.catalog import Catalog
from locex.processes.memory import hard_limit
from locex.schemas.data_format import DataFormat, SideFormat
from locex.settings import SiteSettings
from locex.worker.building import build
from locex.worker.chain import chains_of
from locex.worker.data import DIFFERENT_ENDS, declared_by, faults_of, source_of
from locex.worker.needs import require
from locex.worker.plan import Plan, make_plan

_PIPELINES = ("data", "transform")
_SESSION = ("builder", "optimizer")
_EXAMPLES = 2  # made up, for builders that try a model on the first ones


def dry_run(question: CheckQuestion, catalog: Catalog, site: SiteSettings) -> FormatVerdict:
    """Return whether source, pipelines and model go together; raise what a plugin or the artefact is refused for."""
    model = question.model
    library = model.metadata.meta.library if model else ""
    with hard_limit(site.plugin_memory_mb):
        plan = make_plan(question.job, library, catalog, site, kinds=_PIPELINES + (_SESSION if model else ()))
    train_steps, test_steps = chains_of(plan)
    declared = declared_by(source_of(plan, site), plan.plugins["data"])
    train, fault = follow(declared, train_steps)
    test, test_fault = follow(declared, test_steps)
    faults = list(dict.fromkeys(filter(None, [fault, test_fault])))
    if not faults and train[-1][1] != test[-1][1]:
        faults = [DIFFERENT_ENDS]
    try:
        require([*train_steps, *test_steps], site.preprocessed_folder or site.data_folder, question.models)
    except FormatMismatch as error:
        faults.append(error.message)
    verdict = FormatVerdict(
        fits=False, differences=faults, train=_told(train), test=_told(test), warnings=list(plan.warnings)
    )
    if fault is None:
        _add_model(verdict, plan, question, catalog, site, train)
    verdict.fits = not verdict.differences
    return verdict


def _add_model(
    verdict: FormatVerdict, plan: Plan, question: CheckQuestion, catalog: Catalog, site: SiteSettings, trail: Trail
) -> None:
    signature = ModelSignature(None, None)
    if question.model is not None:
        try:
            signature = _signature(question.model, plan, catalog, site, trail[-1][1], verdict.warnings)
        except FormatMismatch as error:
            verdict.differences.append(error.message)
        verdict.model = Signature(input=_tensor(signature.input), output=_tensor(signature.output))
    verdict.differences += faults_of(plan.job, trail, signature, question.declared)


def _signature(
    model: Model, plan: Plan, catalog: Catalog, site: SiteSettings, final: DataFormat, warnings: list[str]
) -> ModelSignature:
    """Build a session over made-up examples of the final format, as a job would over its own."""
    examples = Dataset(_made_up(final.x), _made_up(final.y))
    artefact = ModelArtefact(Path(model.path), model.metadata, model.digest)
    data = LocalData(examples, examples, final)
    with hard_limit(site.worker_memory_mb):
        return build(plan, site, catalog, artefact, data, seed=0, warn=warnings.append).signature


def _made_up(side: SideFormat) -> Array:
    if len(side.data_types) != 1:
        raise FormatMismatch(f"{' and '.join(side.data_types)} are several kinds, a model takes one tensor")
    (tensor,) = side.data_types.values()
    return np.zeros((_EXAMPLES, *tensor.size), tensor.dtype or (np.float32 if tensor.size else np.int64))


def _told(trail: Trail) -> list[FormatStep]:
    return [FormatStep(step=name, format=form) for name, form in trail]


def _tensor(spec: TensorSpec | None) -> Tensor | None:
    return None if spec is None else Tensor(size=list(spec.size), dtype=spec.dtype)
