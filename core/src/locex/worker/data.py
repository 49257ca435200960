"""The job's data: its format verified, then the data prepared, then held against the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locex.api import Dataset, DataSource, LocalData, ModelSignature, SiteContext
from locex.errors import BrokenPlugin, FormatMismatch
from locex.jobs.site import model_format_of
from locex.pipelines.steps import Step, augmentation
from locex.pipelines.trail import Trail, differences, mismatch, walk
from locex.plugins.host import Configured
from locex.schemas.data_format import DataFormat
from locex.schemas.job import JobConfiguration
from locex.settings import SiteSettings
from locex.worker.chain import chains_of
from locex.worker.needs import require
from locex.worker.pipeline import Pipeline
from locex.worker.plan import Plan
from locex.worker.preparation import Preparation, Surroundings

_MIB = 2**20
DIFFERENT_ENDS = "the test pipeline ends with another format than the train pipeline"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data ready for training, with the way its format took, and the steps of the test pipeline."""

    data: LocalData
    trail: Trail
    steps: list[Step]
    learned: tuple[str, ...] = ()
    """Steps of the training pipeline that learned from the training data."""


def source_of(plan: Plan, site: SiteSettings) -> DataSource:
    """Return the job's data source."""
    # Without a seed of the job's, always the same split: what one job tests on, none trains on.
    return plan.host.data(plan.plugins["data"], site_context(site, plan.job.seed or 0))


def site_context(site: SiteSettings, seed: int) -> SiteContext:
    """Return what data sources may know of the site."""
    return SiteContext(site.data_folder, seed, _cache_of(site), site.preprocessed_mb * _MIB)


def _cache_of(site: SiteSettings) -> Path | None:
    """Return the folder in which sources keep what they made of large files, if the site has one."""
    if site.preprocessed_folder is None:
        return None
    folder = site.preprocessed_folder / "sources"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def declared_by(source: DataSource, plugin: Configured) -> DataFormat:
    """Return the format that a source declares; raise `BrokenPlugin` where it is none."""
    declared: Any = source.format()
    if not isinstance(declared, DataFormat):
        entry = plugin.loaded.entry
        raise BrokenPlugin(entry.kind, entry.name, entry.origin, f"format() gave {type(declared).__name__}")
    return declared


def prepare(plan: Plan, site: SiteSettings, surroundings: Surroundings) -> Prepared:
    """Load and transform the data; formats are verified before any array is touched."""
    source = source_of(plan, site)
    train_steps, test_steps = chains_of(plan)
    require([*train_steps, *test_steps], site.preprocessed_folder or site.data_folder, surroundings.models)
    declared = declared_by(source, plan.plugins["data"])
    learned = tuple(step.label for step in train_steps if step.learns)
    trail, test_trail = walk(declared, train_steps), walk(declared, test_steps)
    if trail[-1][1] != test_trail[-1][1]:
        raise mismatch(DIFFERENT_ENDS, [*trail, *test_trail])
    train, test = (
        Pipeline(steps, [form for _, form in way[1:]])
        for steps, way in ((train_steps, trail), (test_steps, test_trail))
    )
    try:
        ready = Preparation(plan, site, source, train, test, surroundings).data()
    except FormatMismatch as error:
        raise mismatch(error.message, trail if trail == test_trail else [*trail, *test_trail]) from error
    end = train.between(train.fixed)
    final = LocalData(*ready, trail[-1][1], augmentation(end.steps, end.forms))
    return Prepared(final, trail, test_steps, learned)


def verify(plan: Plan, site: SiteSettings, prepared: Prepared, signature: ModelSignature) -> None:
    """Hold the data against the model, the site's model.json and the job's ``shape`` and ``num_classes``."""
    faults = faults_of(plan.job, prepared.trail, signature, model_format_of(site))
    if plan.job.num_classes is not None:
        faults += _classes_beyond(plan.job.num_classes, prepared.data)
    if faults:
        raise mismatch("; ".join(faults), prepared.trail)


def faults_of(job: JobConfiguration, trail: Trail, signature: ModelSignature, declared: DataFormat | None) -> list[str]:
    """Return what differs between the formats of data, model and job; ``declared`` is what model.json says."""
    faults = differences(trail[-1][1], signature, declared)
    sizes = [tensor.size for _, form in (trail[0], trail[-1]) for tensor in form.x.data_types.values()]
    if job.shape is not None and job.shape not in sizes:
        faults.append(f"the job's shape is {job.shape}")
    outputs = (signature.output.size[-1:] or (1,)) if signature.output else (None,)
    classes = job.num_classes
    if classes is not None and outputs not in ((None,), (classes,)) and not (classes == 2 and outputs == (1,)):  # noqa: PLR2004 -- two classes fit one unit
        faults.append(f"the job's num_classes is {classes}, the model gives {outputs[0]}")
    return faults


def _classes_beyond(classes: int, data: LocalData) -> list[str]:
    return [
        f"the job's num_classes is {classes}, the {name} data has {found}"
        for name, part in (("training", data.train), ("test", data.test))
        if (found := _classes_in(part)) is not None and found > classes
    ]


def _classes_in(part: Dataset) -> int | None:
    """Return how many classes the targets can be told to have: one-hot columns, or the largest index and one."""
    if part.y.ndim > 1 and part.y.shape[-1] > 1:
        return int(part.y.shape[-1])
    return int(part.y.max()) + 1 if part.y.dtype.kind in "iu" and part.y.size else None
