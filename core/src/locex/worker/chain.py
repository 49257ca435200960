"""The steps of a job's two pipelines, made of its plugins."""

from __future__ import annotations

from locex.api import FittedTransform
from locex.errors import BrokenPlugin
from locex.plugins.host import Configured
from locex.worker.plan import Plan
from locex.worker.steps import Skipped, Step, contained

_MEMBERS = ("needs", "transform_format", "transform_data")


def chains_of(plan: Plan) -> tuple[list[Step], list[Step]]:
    """Return the steps for training data and those for test data.

    A step that learns and stands in both pipelines, under one name with the same parameters, is one: it learns from
    the training data where the train pipeline has it. Of several such steps, the first goes with the first, and so
    on. Steps that draw are left out of the test pipeline.
    """
    plugins = plan.in_order("train")
    train = [_step(plan, plugin, number, "") for number, plugin in enumerate(plugins, 1)]
    unpaired = list(zip(plugins, train, strict=True))
    test = []
    for number, plugin in enumerate(plan.in_order("test"), 1):
        step = _step(plan, plugin, number, " of the test pipeline")
        pair = next((one for one in unpaired if _same(one[0], plugin)), None)
        if step.random:
            step = Step(f"{step.name} (training only)", Skipped(), step.label)
        elif isinstance(step.transform, FittedTransform) and pair is not None:
            unpaired.remove(pair)
            step = Step(step.name, pair[1].transform, step.label, twin=pair[1])
        test.append(step)
    return train, test


def _step(plan: Plan, plugin: Configured, number: int, where: str) -> Step:
    entry = plugin.loaded.entry
    label = f"step {number} ({entry.name}){where}"
    with contained(label, "was made"):
        transform = plan.host.transform(plugin)
    lacking = [name for name in _MEMBERS if not hasattr(transform, name)]
    if lacking:
        raise BrokenPlugin(entry.kind, entry.name, entry.origin, f"its step has no {', '.join(lacking)}")
    return Step(entry.name, transform, label)


def _same(one: Configured, other: Configured) -> bool:
    return one.loaded.entry == other.loaded.entry and one.config == other.config
