"""The steps of a job's two pipelines, made of its plugins."""

from __future__ import annotations

from locex.api import FittedTransform
from locex.pipelines.steps import Skipped, Step, made_by
from locex.plugins.host import Configured
from locex.worker.plan import Plan


def chains_of(plan: Plan) -> tuple[list[Step], list[Step]]:
    """Return the steps for training data and those for test data.

    A step that learns and stands in both pipelines, under one name with the same parameters, is one: it learns from
    the training data where the train pipeline has it. Of several such steps, the first goes with the first, and so
    on. Steps that draw are left out of the test pipeline.
    """
    plugins = plan.in_order("train")
    train = [made_by(plan.host, plugin, number) for number, plugin in enumerate(plugins, 1)]
    unpaired = list(zip(plugins, train, strict=True))
    test = []
    for number, plugin in enumerate(plan.in_order("test"), 1):
        step = made_by(plan.host, plugin, number, " of the test pipeline")
        pair = next((one for one in unpaired if _same(one[0], plugin)), None)
        if step.random:
            step = Step(f"{step.name} (training only)", Skipped(), step.label)
        elif isinstance(step.transform, FittedTransform) and pair is not None:
            unpaired.remove(pair)
            step = Step(step.name, pair[1].transform, step.label, twin=pair[1], fields=step.fields)
        test.append(step)
    return train, test


def _same(one: Configured, other: Configured) -> bool:
    return one.loaded.entry == other.loaded.entry and one.config == other.config
