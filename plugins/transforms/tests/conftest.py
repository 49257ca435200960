"""Plugins by name, as jobs find them, and what holds for every step."""

from importlib.metadata import entry_points

import numpy as np
import pytest

from locex.api import Dataset, FittedTransform, SiteContext
from locex.schemas.base import validate
from locex.schemas.data_format import DataFormat


def load(kind, name):
    (entry,) = entry_points(group=f"locex.{kind}", name=name)
    return entry.load()()


@pytest.fixture(scope="session")
def make_step():
    def make(name, **fields):
        plugin = load("transform", name)
        return plugin.locex_create_transform(validate(plugin.locex_config_model(), fields))

    return make


@pytest.fixture(scope="session")
def make_source():
    def make(name, folder, *, job_seed=0, cache=None, cache_bytes=None, **fields):
        plugin = load("data", name)
        context = SiteContext(folder, job_seed, cache, cache_bytes)
        return plugin.locex_create_data(validate(plugin.locex_config_model(), fields), context)

    return make


def format_of(data):
    def side(array):
        return {"size": list(array.shape[1:]), "dtype": None if array.dtype.kind in "USO" else array.dtype.name}

    return DataFormat.of({"given": side(data.x)}, {"target": side(data.y)})


@pytest.fixture(scope="session")
def apply_step():
    """Apply a step; hold it against its rule for formats, and against itself example by example."""

    def run(transform, data):
        data.x.flags.writeable = data.y.flags.writeable = False  # whoever changes its input raises
        declared = format_of(data)
        untouched = declared.model_copy(deep=True)
        if isinstance(transform, FittedTransform):
            transform.fit(data)
        result = transform.transform_data(data)
        after = transform.transform_format(declared)
        assert declared == untouched
        for side, array in (("x", result.x), ("y", result.y)):
            (tensor,) = getattr(after, side).data_types.values()
            assert tensor.size == list(array.shape[1:])
            assert tensor.dtype == (None if array.dtype.kind in "USO" else array.dtype.name)
        one_by_one = [slice(k, k + 1) for k in range(len(data) + 1)]  # the last one is empty
        pieces = [transform.transform_data(Dataset(data.x[part], data.y[part])) for part in one_by_one]
        for side in ("x", "y"):
            if getattr(result, side).dtype.kind not in "USO":
                assert {getattr(piece, side).dtype for piece in pieces} == {getattr(result, side).dtype}
            alone = np.concatenate([getattr(piece, side) for piece in pieces])
            if alone.dtype.kind == "f":
                np.testing.assert_allclose(alone, getattr(result, side), rtol=1e-5, atol=1e-5)
            else:
                np.testing.assert_array_equal(alone, getattr(result, side))
        return result, after

    return run
