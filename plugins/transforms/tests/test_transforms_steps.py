"""The steps: their rule for formats agrees with what they do to data."""

import re
from importlib.metadata import entry_points

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from locex.api import Dataset
from locex.errors import InvalidConfiguration
from locex.schemas.base import validate
from locex.schemas.data_format import DataFormat

NUMBERS = st.sampled_from(["bool", "uint8", "int16", "int32", "int64", "uint64", "float16", "float32", "float64"])
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)


def step(name, **fields):
    (entry,) = entry_points(group="locex.transform", name=name)
    plugin = entry.load()()
    return plugin.locex_create_transform(validate(plugin.locex_config_model(), fields))


def format_of(data, x_kind="image", y_kind="categorical"):
    def side(array):
        return {"size": list(array.shape[1:]), "dtype": array.dtype.name}

    return DataFormat.of({x_kind: side(data.x)}, {y_kind: side(data.y)})


def applied(transform, data):
    """Apply a step; check that the inputs stay and that the format's rule foretells the outcome."""
    before = (data.x.copy(), data.y.copy())
    data.x.flags.writeable = data.y.flags.writeable = False
    declared = format_of(data)
    untouched = declared.model_copy(deep=True)
    result = transform.transform_data(data)
    np.testing.assert_array_equal(data.x, before[0])
    np.testing.assert_array_equal(data.y, before[1])
    after = transform.transform_format(declared)
    assert declared == untouched
    for side, array in (("x", result.x), ("y", result.y)):
        (tensor,) = getattr(after, side).data_types.values()
        assert tensor.size == list(array.shape[1:])
        assert tensor.dtype == array.dtype.name
    return result, after


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    x=NUMBERS.flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            SHAPES,
            elements={"allow_nan": False, "allow_infinity": False, "min_value": 0, "max_value": 1000}
            if dtype.startswith("float")
            else None,
        )
    ),
    mean=st.floats(-100, 100),
    std=st.floats(0.01, 100),
)
def test_basic_norm_scales_any_shape_and_type(x, mean, std):
    data = Dataset(x, np.zeros(len(x), np.int64))

    result, after = applied(step("basic_norm", mean=mean, std=std), data)

    assert result.y is data.y
    assert after.x.data_types["image"].normalized is True
    np.testing.assert_allclose(result.x, (x.astype(np.float64) - mean) / std, rtol=1e-5, atol=1e-3)


def test_basic_norm_by_default_only_converts():
    result, _ = applied(step("basic_norm"), Dataset(np.array([[0, 255]], np.uint8), np.zeros(1)))

    np.testing.assert_array_equal(result.x, np.array([[0, 255]], np.float32))


def test_basic_norm_keeps_the_precision_of_large_integers():
    x = np.array([[2**40, 2**40 + 1]], np.int64)

    result, _ = applied(step("basic_norm", mean=2.0**40), Dataset(x, np.zeros(1)))

    np.testing.assert_array_equal(result.x, [[0, 1]])


@pytest.mark.parametrize(("axis", "shape"), [(-1, (5, 4, 3)), (0, (3, 4, 5)), (1, (4, 3, 5)), (-2, (4, 3, 5))])
def test_basic_norm_per_channel(axis, shape):
    x = np.random.default_rng(0).integers(0, 255, (2, *shape), np.uint8)

    result, _ = applied(step("basic_norm", mean=[1, 2, 3], std=[4, 5, 6], axis=axis), Dataset(x, np.zeros(2)))

    where = axis if axis < 0 else axis + 1
    for channel in range(3):
        expected = (np.take(x, channel, where).astype(np.float64) - channel - 1) / (channel + 4)
        np.testing.assert_allclose(np.take(result.x, channel, where), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"std": 0}, "greater than 0"),
        ({"std": [1, -1]}, "greater than 0"),
        ({"std": 1e-40}, "smallest normal float32"),
        ({"mean": [1, 2], "std": [1, 2, 3]}, "mean has 2 channels, std 3"),
        ({"mean": []}, "at least 1 item"),
        ({"mean": "nan"}, "finite"),
        ({"median": 1}, "allowed here are: axis, mean, std"),
    ],
)
def test_basic_norm_refuses_a_configuration(fields, complaint):
    with pytest.raises(InvalidConfiguration, match=re.escape(complaint)):
        step("basic_norm", **fields)


@pytest.mark.parametrize(
    ("size", "dtype", "complaint"),
    [
        ([28, 28], "float32", "needs a size with 3 at axis -1, but x 'image' has size [28, 28]"),
        ([], "float32", "has size []"),
        ([3], "str", "needs numbers, but x 'image' has dtype str"),
    ],
)
def test_basic_norm_refuses_a_format(size, dtype, complaint):
    given_format = DataFormat.of({"image": {"size": size, "dtype": dtype}}, {"categorical": {"size": []}})

    with pytest.raises(ValueError, match=re.escape(complaint)):
        step("basic_norm", mean=[1, 2, 3]).transform_format(given_format)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    y=st.sampled_from(["uint8", "int8", "int32", "int64", "uint64"]).flatmap(
        lambda dtype: hnp.arrays(dtype, st.integers(0, 20), elements=st.integers(0, 6))
    ),
    column=st.booleans(),
)
def test_categorical_encodes_any_integer_type(y, column):
    data = Dataset(np.zeros((len(y), 2)), y.reshape(-1, 1) if column else y)

    transform = step("categorical", categories="7")
    result, after = applied(transform, data)

    assert result.x is data.x
    np.testing.assert_array_equal(transform.inverse_data(result).y, y.astype(np.int64), strict=True)
    np.testing.assert_array_equal(result.y, np.eye(7, dtype=np.float32)[y.astype(int)])
    assert list(after.y.data_types) == ["categorical"]


def test_categorical_renames_the_kind_and_keeps_what_else_is_known():
    given_format = DataFormat.of({"image": {"size": [2]}}, {"numerical": {"size": 1, "source": "sensor"}})

    after = step("categorical", categories=3).transform_format(given_format)

    assert after.y.model_dump() == {
        "data_types": {"categorical": {"size": [3], "dtype": "float32", "normalized": None, "source": "sensor"}}
    }


@pytest.mark.parametrize(
    ("y", "complaint"),
    [
        (np.array([0, 3]), "3 categories, indices 0 to 2, but y holds 0 to 3"),
        (np.array([-1, 2], np.int8), "y holds -1 to 2"),
        (np.array([2**64 - 1], np.uint64), f"y holds {2**64 - 1} to {2**64 - 1}"),
        (np.array([0.0, 1.0]), "integer y of shape (n,) or (n, 1), got float64 of shape (2,)"),
        (np.zeros((2, 3), int), "got int64 of shape (2, 3)"),
        (np.zeros((2, 1, 1), int), "got int64 of shape (2, 1, 1)"),
    ],
)
def test_categorical_refuses_data(y, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        step("categorical", categories=3).transform_data(Dataset(np.zeros(len(y)), y))


@pytest.mark.parametrize(
    ("kinds", "complaint"),
    [
        (
            {"categorical": {"size": [10], "dtype": "int64"}},
            "needs y of size [] or [1], but 'categorical' has size [10]",
        ),
        ({"numerical": {"size": [], "dtype": "float32"}}, "needs integer y, but 'numerical' has dtype float32"),
        ({"a": {"size": []}, "b": {"size": []}}, "needs one kind of y, but the format has ['a', 'b']"),
    ],
)
def test_categorical_refuses_a_format(kinds, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        step("categorical", categories=10).transform_format(DataFormat.of({"image": {"size": [1]}}, kinds))


@pytest.mark.parametrize("fields", [{}, {"categories": 0}, {"categories": 2.5}])
def test_categorical_needs_a_number_of_classes(fields):
    with pytest.raises(InvalidConfiguration, match="categories"):
        step("categorical", **fields)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shape=SHAPES, dtype=NUMBERS, place=st.integers(-5, 4), side=st.sampled_from("xy"))
def test_expansion_is_expand_dims_of_each_example(shape, dtype, place, side):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    data = Dataset(array, array.copy())
    transform = step("expansion", axis=place, side=side)
    rank = len(shape) - 1
    if not -(rank + 1) <= place <= rank:
        complaint = f"which takes {-(rank + 1)} to {rank}"
        with pytest.raises(ValueError, match=complaint):
            transform.transform_data(data)
        with pytest.raises(ValueError, match=complaint):
            transform.transform_format(format_of(data))
        return

    result, _ = applied(transform, data)

    expected = np.stack([np.expand_dims(example, place) for example in array])
    np.testing.assert_array_equal(getattr(result, side), expected, strict=True)
    other = "y" if side == "x" else "x"
    assert getattr(result, other) is getattr(data, other)


def test_expansion_by_default_adds_a_last_axis_to_images():
    result, _ = applied(step("expansion"), Dataset(np.zeros((2, 28, 28)), np.zeros(2)))

    assert result.x.shape == (2, 28, 28, 1)
