from __future__ import annotations

import numpy as np
import pytest

from locex.api import Dataset, ModelSignature, Needs, TensorSpec
from locex.errors import FormatMismatch
from locex.pipelines.steps import Step
from locex.pipelines.trail import describe, differences, walk
from locex.schemas.data_format import DataFormat
from locex.worker.needs import require
from locex.worker.pipeline import Passes, Pipeline

TARGET = {"categorical": {"size": [], "dtype": "int64"}}


def images(size=(28, 28), dtype="uint8", y=TARGET):
    return DataFormat.of({"image": {"size": list(size), "dtype": dtype}}, y)


class Flatten:
    needs = Needs()

    def transform_data(self, data):
        return Dataset(data.x.reshape(len(data.x), -1), data.y)

    def transform_format(self, data_format):
        for tensor in data_format.x.data_types.values():  # in place: the trail must not notice
            if len(tensor.size) != 2:
                raise ValueError(f"an image has two axes, not {len(tensor.size)}")
            tensor.size = [tensor.size[0] * tensor.size[1]]
        return data_format


class Flattened(Flatten):
    """Follows its rule in size only."""

    def transform_data(self, data):
        return Dataset(super().transform_data(data).x.astype(np.float32), data.y)


def step(name, transform, number=1):
    return Step(name, transform, f"step {number} ({name})")


def apply(data, form, *steps):
    def open_file():
        raise AssertionError("so little data needs no file")

    return Passes(open_file).through(data, Pipeline(steps, [form for _, form in walk(form, steps)[1:]]))


def fault(form, model_in, model_out=None, *, declared=None):
    signature = ModelSignature(*(spec and TensorSpec(*spec) for spec in (model_in, model_out)))
    return "; ".join(differences(walk(form, [])[-1][1], signature, declared)) or None


def test_a_step_that_cannot_take_its_input_is_named_with_the_way_there():
    steps = [step("flatten", Flatten()), step("again", Flatten(), 2)]
    with pytest.raises(FormatMismatch) as caught:
        walk(images(), steps)
    assert caught.value.message.splitlines() == [
        "the data does not fit the model: step 2 (again) cannot take its input: an image has two axes, not 1",
        "the format step by step:",
        "  0. source: x image [28, 28] uint8, y categorical [] int64",
        "  1. flatten: x image [784] uint8, y categorical [] int64",
    ]
    assert [error["path"] for error in caught.value.errors] == ["/steps/0", "/steps/1"]


@pytest.mark.parametrize(
    ("size", "dtype", "spec", "expected"),
    [
        ([28, 28], "float32", ((28, 28), "float32"), None),
        ([28, 28], "float64", ((28, 28), "float32"), None),
        ([28, 28], None, ((28, 28), "float32"), None),
        ([28, 28], "float32", ((None, 28), "float32"), None),
        ([28, 28], "float32", None, None),
        (
            [28, 28],
            "float32",
            ((1, 28, 28), "float32"),
            "x has the size [28, 28] of rank 2, not 3, the model takes [1, 28, 28]",
        ),
        ([28, 28], "float32", ((28, 32), "float32"), "x has the size [28, 28], the model takes [28, 32]"),
        ([28, 28], "float32", ((None, 32), "float32"), "x has the size [28, 28], the model takes ['any', 32]"),
        ([28, 28], "uint8", ((28, 28), "float32"), "x has the type uint8, the model takes float32"),
    ],
)
def test_inputs_are_compared_by_rank_size_and_kind_of_element(size, dtype, spec, expected):
    assert fault(images(size, dtype), spec) == expected


@pytest.mark.parametrize(
    ("size", "dtype", "output", "fits"),
    [
        ([], "int64", (10,), True),  # an index for a score per class
        ([1], "int64", (10,), True),
        ([10], "float32", (10,), True),  # one-hot
        ([], "int64", (None,), True),
        ([], None, (10,), True),
        ([], "bool", (1,), True),  # two classes fit one unit
        ([], "float32", (1,), True),  # a number for one unit
        ([1], "float32", (1,), True),
        ([], "float32", (10,), False),
        ([9], "float32", (10,), False),
        ([], "int64", (10, 4), False),
    ],
)
def test_targets_may_be_an_index_one_hot_or_one_unit(size, dtype, output, fits):
    found = fault(images(y={"target": {"size": size, "dtype": dtype}}), None, (output, "float32"))
    assert (found is None) == fits
    assert fits or f"the model gives {list(output)}" in found


def test_faults_of_both_sides_come_together():
    found = fault(images(), ((10,), "float32"), ((3, 3), "float32"))
    assert "x has the size" in found
    assert "y has the size" in found


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (images(), None),
        (images(dtype=None), None),
        (DataFormat.of({"tabular": {"size": [28, 28]}}, TARGET), "x is image, the model takes tabular"),
        (images((28, 27)), "x image has the size [28, 28], the model takes [28, 27]"),
        (images((784,)), "x image has the size [28, 28], the model takes [784]"),
        (images(dtype="float32"), "x image has the type uint8, the model takes float32"),
    ],
)
def test_the_format_that_the_site_declares_for_its_model_counts_too(declared, expected):
    assert fault(images(), None, declared=declared) == expected


def test_several_kinds_do_not_fit_one_tensor_but_may_fit_a_declaration():
    both = DataFormat.of({"image": {"size": [28, 28]}, "tabular": {"size": 3}}, TARGET)
    assert fault(both, ((28, 28), "float32")) == "x has 2 kinds, the model has one tensor"
    assert fault(both, None, declared=both) is None
    assert describe(both) == "x image [28, 28] any type + tabular [3] any type, y categorical [] int64"


def test_data_follow_the_rules_that_their_steps_declare():
    data = Dataset(np.zeros((5, 28, 28), np.uint8), np.zeros(5, np.int64))
    assert apply(data, images(), step("flatten", Flatten())).x.shape == (5, 784)
    with pytest.raises(FormatMismatch, match=r"step 1 \(flattened\) gave x with type float32 instead of uint8"):
        apply(data, images(), step("flattened", Flattened()))


@pytest.mark.parametrize(
    ("needs", "lacking"),
    [
        (Needs(libraries=("json", "no_such_library")), "the library no_such_library"),
        (Needs(libraries=("no_such_library.part",)), "the library no_such_library.part"),
        (Needs(memory=1e6), "1000000.0 GiB of free memory"),
        (Needs(storage=1e9, libraries=("nowhere",)), "the library nowhere and 1000000000.0 GiB of free storage"),
        (Needs(models=("encoder", "encoder/1", "encoder/2")), "the model encoder/2"),
        (Needs(models=("decoder",)), "the model decoder"),
    ],
)
def test_a_step_that_needs_more_than_the_machine_has_is_named(tmp_path, needs, lacking):
    wanting = Flatten()
    wanting.needs = needs
    models = {"encoder": ["1"]}
    with pytest.raises(FormatMismatch, match=f"the step flatten needs {lacking}$"):
        require([step("flatten", wanting)], tmp_path / "not yet made", models)
    require([step("flatten", Flatten())], tmp_path, models)


def test_a_word_that_is_no_type_is_named():
    odd = DataFormat.of({"tabular": {"size": [2], "dtype": "flaot32"}}, {"categorical": {"size": []}})
    with pytest.raises(FormatMismatch, match="tabular has the unknown type 'flaot32'"):
        walk(odd, [])
