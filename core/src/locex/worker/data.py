"""The job's data: loaded from its source, passed through its pipelines, held against its model."""

from __future__ import annotations

from dataclasses import dataclass

from locex.api import Dataset, LocalData, ModelSignature, SiteContext
from locex.errors import DataUnavailable, FormatMismatch
from locex.jobs.site import model_format_of
from locex.plugins.host import Configured
from locex.settings import SiteSettings
from locex.worker.pipeline import Step, Trail, apply, compare, mismatch, require, walk
from locex.worker.plan import Plan


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data ready for training, with the way its format took."""

    data: LocalData
    trail: Trail


def prepare(plan: Plan, site: SiteSettings) -> Prepared:
    """Load and transform the data; formats are verified before any array is touched."""
    host = plan.host
    # Without a seed of the job's, always the same split: what one job tests on, none trains on.
    source = host.data(plan.plugins["data"], SiteContext(site.data_folder, plan.job.seed or 0))
    train_steps, test_steps = (_steps(plan, side) for side in ("train", "test"))
    require([*train_steps, *test_steps], site.preprocessed_folder or site.data_folder)
    declared = source.format()
    trail, test_trail = walk(declared, train_steps), walk(declared, test_steps)
    if trail[-1][1] != test_trail[-1][1]:
        raise mismatch("the test pipeline ends with another format than the train pipeline", [*trail, *test_trail])
    loaded = source.load()
    if not len(loaded.train):
        raise DataUnavailable("the data source has no training examples", remedy="check DATA_FOLDER and the source")
    data = LocalData(apply(loaded.train, train_steps, trail), apply(loaded.test, test_steps, test_trail), trail[-1][1])
    return Prepared(data, trail)


def verify(plan: Plan, site: SiteSettings, prepared: Prepared, signature: ModelSignature) -> None:
    """Hold the data against the model, the site's model.json and the job's ``shape`` and ``num_classes``."""
    compare(prepared.trail, signature, model_format_of(site))
    job, trail = plan.job, prepared.trail
    if job.shape is not None:
        sizes = [tensor.size for _, form in (trail[0], trail[-1]) for tensor in form.x.data_types.values()]
        if job.shape not in sizes:
            raise mismatch(f"the job's shape is {job.shape}", trail)
    if job.num_classes is not None:
        _check_classes(job.num_classes, prepared, signature)


def _check_classes(classes: int, prepared: Prepared, signature: ModelSignature) -> None:
    outputs = (signature.output.size[-1:] or (1,)) if signature.output else (None,)
    if outputs not in ((None,), (classes,)) and not (classes == 2 and outputs == (1,)):  # noqa: PLR2004 -- two classes fit one unit
        raise mismatch(f"the job's num_classes is {classes}, the model gives {outputs[0]}", prepared.trail)
    for name, part in (("training", prepared.data.train), ("test", prepared.data.test)):
        found = _classes_in(part)
        if found is not None and found > classes:
            raise FormatMismatch(
                f"the job's num_classes is {classes}, the {name} data has {found}",
                remedy="correct num_classes or the data",
            )


def _classes_in(part: Dataset) -> int | None:
    """Return how many classes the targets can be told to have: one-hot columns, or the largest index and one."""
    if part.y.ndim > 1 and part.y.shape[-1] > 1:
        return int(part.y.shape[-1])
    return int(part.y.max()) + 1 if part.y.dtype.kind in "iu" and part.y.size else None


def _steps(plan: Plan, side: str) -> list[Step]:
    plugins: list[Configured] = plan.in_order(side)
    return [Step(plugin.loaded.entry.name, plan.host.transform(plugin)) for plugin in plugins]
