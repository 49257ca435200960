"""Every step on any data that it takes: its rule for formats, example by example, inverse, input unchanged."""

import sys
from importlib.metadata import entry_points

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from locex.api import Dataset, FittedTransform, RandomTransform
from locex.schemas.data_format import DataFormat

ANY = ("uint8", "int16", "int32", "int64", "float16", "float32", "float64")
FLOATS = ("float32", "float64")
IMAGES = ("uint8", "uint16", "int32", "float32", "float64")

# id, fields, axes of an example, types, whether it has an inverse
CASES = [
    ("argmax", {}, (1, 3), ANY, False),
    ("argmax", {"axis": 0}, (2, 3), FLOATS, False),
    ("basic_norm", {"mean": 3, "std": 7}, (0, 3), ANY, True),
    ("clip", {"min": 2, "max": 90.5}, (0, 3), ANY, False),
    ("clip", {"max": 40}, (0, 3), ANY, False),
    ("compute_vector_length", {}, (1, 3), ANY, False),
    ("compute_vector_length", {"axis": 0}, (2, 2), FLOATS, False),
    ("construct_car_damage_output_dictionary", {}, (1, 1), ANY, False),
    ("crop", {"size": [1, 1]}, (2, 3), ANY, False),
    ("crop", {"size": [1, 1], "offset": [0, 0], "axes": [1, 2]}, (3, 3), ANY, False),
    ("expansion", {"axis": 0}, (0, 3), ANY, True),
    ("filter_outputs", {"threshold": 10}, (1, 3), ANY, False),
    ("filter_outputs", {"outputs": [0, -1, 0]}, (1, 2), ANY, False),
    ("impute", {"missing": 3, "value": 8}, (0, 3), ANY, False),
    ("impute", {"missing": 3, "strategy": "mean"}, (0, 3), FLOATS, False),
    ("merge_as_column", {}, (0, 4), ANY, False),
    ("min_max_scale", {}, (0, 3), ANY, True),
    ("min_max_scale", {"axis": -1, "low": -1}, (1, 3), ANY, True),
    ("ndarray_to_torch_tensor", {}, (0, 3), ANY, True),
    ("postprocess_tensorflow_tensor", {}, (0, 3), ANY, True),
    ("preprocess_tensorflow_tensor", {}, (0, 3), ANY, True),
    ("rescale", {}, (0, 3), ANY, True),
    ("rescale", {"scale": -2, "offset": 5}, (0, 3), ANY, True),
    ("rescale_values_to_milli_gi", {}, (0, 2), ANY, True),
    ("resize", {"size": [3, 2]}, (2, 3), IMAGES, False),
    ("resize", {"size": [2, 5], "method": "nearest"}, (2, 3), ANY, False),
    ("resize", {"size": [2, 5], "method": "bicubic", "axes": [1, 2], "antialias": False}, (3, 3), IMAGES, False),
    ("resize_pillow_array", {"size": [3, 2]}, (2, 3), IMAGES, False),
    ("softmax", {}, (1, 3), ANY, False),
    ("standard_scale", {}, (0, 3), ANY, True),
    ("standard_scale", {"axis": 0}, (1, 3), ANY, True),
    ("transpose", {"axes": [1, 0]}, (2, 2), ANY, True),
    ("img_transpose", {}, (3, 3), ANY, True),
    ("random_flip", {"axis": -1}, (1, 3), ANY, False),
    ("random_noise", {"low": 0, "high": 90}, (0, 3), ANY, False),
    ("random_rotation", {}, (2, 3), ANY, False),
]
SIDED = {
    entry.name
    for entry in entry_points(group="locex.transform")
    if "locex_transforms" in entry.value and "side" in entry.load()().locex_config_model().model_fields
}
ELSEWHERE = {"categorical", "label_mapping", "read_image_batch", "text_hashing"}
OF_OTHER_INPUTS = [
    ("categorical", {"categories": 3}, (0, 1), ANY),
    ("label_mapping", {"labels": ["a", "b", "c"]}, (0, 1), ANY),
    ("text_hashing", {}, (0, 0), ("U5",)),
]


def test_every_step_is_tried():
    installed = {entry.name for entry in entry_points(group="locex.transform") if "locex_transforms" in entry.value}
    assert {case[0] for case in CASES} | ELSEWHERE == installed


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'-'.join(case[1])}")
def test_every_inverse_is_tried(case, make_step):
    name, fields, _, _, inverse = case
    assert hasattr(make_step(name, **fields), "inverse_data") == inverse


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'-'.join(case[1])}")
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.data())
def test_a_step_keeps_its_word(case, drawn, make_step, apply_step):
    name, fields, ranks, dtypes, _inverse = case
    shape = (
        drawn.draw(st.integers(1, 4)),
        *drawn.draw(st.lists(st.integers(1, 4), min_size=ranks[0], max_size=ranks[1])),
    )
    dtype = drawn.draw(st.sampled_from(dtypes))
    whole = hnp.arrays(dtype, shape, elements={"min_value": 0, "max_value": 100})
    x = drawn.draw(whole)

    result, _ = apply_step(make_step(name, **fields), Dataset(x, np.zeros(len(x), np.int64)))

    assert len(result.x) == len(x)


@pytest.mark.parametrize("case", [*CASES, *OF_OTHER_INPUTS], ids=lambda case: f"{case[0]}-{'-'.join(case[1])}")
def test_a_step_runs_as_many_lines_of_python_for_many_examples_as_for_few(case, make_step):
    name, fields, ranks, dtypes, *_ = case

    def lines(examples):
        step, count = make_step(name, **fields), 0
        x = (np.arange(examples * 3 ** ranks[1]) % 3).reshape(examples, *[3] * ranks[1]).astype(dtypes[0])
        data = Dataset(x, np.arange(examples) % 3)
        if isinstance(step, FittedTransform):
            step.fit(data)

        def trace(frame, event, _):
            nonlocal count
            ours = "locex_transforms" in frame.f_code.co_filename
            count += ours and event == "line"
            return trace if ours else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            if isinstance(step, RandomTransform):
                step.transform_batch(data, np.random.default_rng(0))
            else:
                step.transform_data(data)
        finally:
            sys.settrace(before)
        return count

    assert 0 < lines(3) == lines(300)


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in SIDED], ids=lambda case: case[0])
def test_targets_are_changed_as_inputs_are(case, make_step, apply_step):
    name, fields, ranks, _, _ = case
    array = np.random.default_rng(2).integers(0, 100, (5, 4, 3, 2)[: 1 + max(ranks)]).astype(np.float32)
    other = np.arange(5)

    of_x, _ = apply_step(make_step(name, **fields), Dataset(array.copy(), other))
    of_y, _ = apply_step(make_step(name, side="y", **fields), Dataset(other, array.copy()))

    np.testing.assert_array_equal(of_y.y, of_x.x)
    assert of_y.x is other


@pytest.mark.parametrize("case", [case for case in CASES if case[4]], ids=lambda case: case[0])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_inverse_leads_back(case, dtype, make_step):
    name, fields, ranks, _, _ = case
    x = np.random.default_rng(1).integers(0, 100, (5, 4, 3, 2)[: 1 + max(ranks)]).astype(dtype)
    data, transform = Dataset(x, np.arange(5)), make_step(name, **fields)
    if hasattr(transform, "fit"):
        transform.fit(data)

    back = transform.inverse_data(transform.transform_data(data))

    assert back.x.shape == x.shape
    np.testing.assert_allclose(back.x, x, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "fields", "size", "dtype", "complaint"),
    [
        ("argmax", {}, [], "float32", "argmax acts on axis -1, but x has size []"),
        ("clip", {"min": 1}, [2], "bool", "needs numbers"),
        ("clip", {"min": 300}, [2], "uint8", "no uint8 between 300.0 and inf"),
        ("clip", {"min": 0.2, "max": 0.8}, [2], "int64", "no int64 between"),
        ("compute_vector_length", {}, [3], "str", "needs numbers, but x 'given' has dtype str"),
        ("crop", {"size": [3, 3]}, [2, 4], "uint8", "crop to [3, 3] at the middle leaves x of [2, 4]"),
        ("crop", {"size": [2, 2], "offset": [1, 0]}, [2, 4], "uint8", "crop to [2, 2] at [1, 0]"),
        ("filter_outputs", {"outputs": 3}, [3], "float32", "keeps [3], but x has size [3]"),
        ("impute", {}, [1], "bool", "needs numbers"),
        ("impute", {"value": -1}, [1], "uint8", "cannot put -1.0 into x 'given' of dtype uint8"),
        ("impute", {"value": 0.5}, [1], "int64", "cannot put 0.5 into x"),
        ("label_mapping", {"labels": ["a"]}, [], "float32", "needs integers"),
        ("random_flip", {}, [3], "uint8", "acts on the axes [1], but x 'given' has size [3]"),
        ("random_noise", {}, [3], "bool", "needs numbers"),
        ("random_rotation", {}, [3], "uint8", "acts on the axes [0, 1]"),
        ("random_rotation", {}, [3, 3], "bool", "needs numbers"),
        ("read_image_batch", {"size": [2, 2]}, [3], "uint8", "needs encoded images"),
        ("resize", {"size": [2, 2]}, [3], "uint8", "acts on axis 1, but x has size [3]"),
        ("resize", {"size": [2, 2]}, [3, 3], "bool", "needs the method nearest"),
        ("softmax", {}, [0], "float32", "softmax needs outputs"),
        ("standard_scale", {"axis": 1}, [3], "float32", "acts on axis 1"),
        ("text_hashing", {}, [3], "str", "needs one text"),
        ("transpose", {}, [3, 3], "uint8", "orders 3 axes, but x has size [3, 3]"),
    ],
)
def test_formats_that_cannot_be_taken(name, fields, size, dtype, complaint, make_step):
    given = DataFormat.of({"given": {"size": size, "dtype": dtype}}, {"y": {"size": []}})
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- its text follows
        make_step(name, **fields).transform_format(given)
    assert complaint in str(caught.value)
