"""Steps that learn keep what they learnt, to the bit, and take it up in another process."""

from __future__ import annotations

from importlib.metadata import entry_points

import numpy as np
import pytest

from locex.api import Dataset, FittedTransform, SavedTransform
from locex.pipelines.saved import MAX_BYTES, SavedPipeline, UnsavedPipeline, restore
from locex.pipelines.steps import Step, fit
from locex.schemas.base import validate
from locex.schemas.data_format import DataFormat

FITTED = {
    "standard_scale": {},
    "standard_scale by channel": {"axis": -1},
    "min_max_scale": {},
    "impute": {"strategy": "mean"},
}


def step(name, **fields):
    (entry,) = entry_points(group="locex.transform", name=name.partition(" ")[0])
    plugin = entry.load()()
    config = validate(plugin.locex_config_model(), fields)
    transform = plugin.locex_create_transform(config)
    return Step(entry.name, transform, f"step 1 ({name})", fields=config.model_dump(mode="json", exclude_none=True))


def data(rows=50, size=(3, 2)):
    x = np.random.default_rng(3).normal(5, 3, (rows, *size))
    x[::7, 0] = np.nan
    return Dataset(x, np.zeros(rows, np.int64))


def form(size=(3, 2)):
    return DataFormat.of({"tabular": {"size": [*size], "dtype": "float64"}}, {"categorical": {"size": []}})


@pytest.mark.parametrize("name", FITTED)
def test_what_was_learnt_survives_to_the_bit(name):
    examples = data() if name == "impute" else Dataset(np.nan_to_num(data().x), data().y)
    learnt, fresh = step(name, **FITTED[name]), step(name, **FITTED[name])
    assert isinstance(learnt.transform, FittedTransform)
    assert isinstance(learnt.transform, SavedTransform)
    fit(learnt, examples)
    kept = SavedPipeline.model_validate_json(SavedPipeline.of([learnt], form()).model_dump_json())
    restore(fresh, kept.steps[0])
    assert not fresh.learns
    one, other = (each.transform.transform_data(examples).x for each in (learnt, fresh))
    assert one.dtype == other.dtype
    assert one.tobytes() == other.tobytes()


def test_a_state_that_is_another_steps_is_refused():
    for state in ({}, {"shift": np.zeros(1)}, {"shift": np.zeros(1), "width": np.full(1, np.nan)}):
        with pytest.raises(ValueError, match=r"standard_scale is restored from"):
            step("standard_scale").transform.restore(state)
    with pytest.raises(ValueError, match=r"would divide by 0"):
        step("standard_scale").transform.restore({"shift": np.zeros(1), "width": np.zeros(1)})


def test_too_much_knowledge_is_not_kept_with_a_model():
    size = (MAX_BYTES // 16 + 1,)
    learnt = step("standard_scale")
    fit(learnt, Dataset(np.zeros((2, *size)), np.zeros(2)))
    with pytest.raises(UnsavedPipeline, match=r"kept with a model are up to 1048576"):
        SavedPipeline.of([learnt], form(size))
