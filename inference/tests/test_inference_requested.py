import ml_dtypes
import numpy as np
import pytest

from locex_inference.classification import classify
from locex_inference.errors import InvalidInference
from locex_inference.requested import PLAIN, deadline_of, requested
from locex_inference.shared_memory import Part


def texts(array):
    return [text.decode() for text in array.ravel()]


def test_the_best_classes_come_first_with_value_index_and_label():
    scores = np.array([[0.25, 0.5, 0.125], [1, -1, 2]], np.float32)
    assert texts(classify(scores, 2, "y")) == ["0.500000:1", "0.250000:0", "2.000000:2", "1.000000:0"]
    assert texts(classify(scores, 9, "y", ["a", "b"]))[:3] == ["0.500000:1:b", "0.250000:0:a", "0.125000:2"]
    assert classify(scores, 9, "y").shape == (2, 3)


def test_one_axis_is_one_example_and_further_axes_are_classes():
    assert texts(classify(np.array([3, 7, 5]), 1, "y")) == ["7:1"]
    assert classify(np.array([3, 7, 5]), 2, "y").shape == (2,)
    assert texts(classify(np.array([[[1, 2], [9, 4]]]), 1, "y")) == ["9:2"]
    assert classify(np.zeros((0, 3)), 2, "y").shape == (0, 2)


def test_ties_keep_their_order_and_nan_is_last():
    assert texts(classify(np.array([1.0, np.nan, 1.0, 2.0]), 4, "y"))[:3] == ["2.000000:3", "1.000000:0", "1.000000:2"]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint64, np.int64, np.float16, ml_dtypes.bfloat16])
def test_every_number_can_be_classified(dtype):
    assert texts(classify(np.array([0, 1]).astype(dtype), 1, "y"))[0].endswith(":1")


def test_texts_cannot():
    with pytest.raises(InvalidInference, match="BYTES"):
        classify(np.array([b"a"], object), 1, "y")


def test_parameters_of_an_output_say_its_form():
    assert requested({}, "y") is PLAIN
    found = requested({"classification": 2, "shared_memory_region": "r", "shared_memory_byte_size": 8}, "y")
    assert (found.classes, found.part) == (2, Part("r", 8))
    for wrong in (-1, "2", 1.5, True):
        with pytest.raises(InvalidInference, match="'y'"):
            requested({"classification": wrong}, "y")


def test_the_earlier_of_two_deadlines_counts():
    assert deadline_of({}, 10.0) is None
    assert deadline_of({"timeout": 0}, 10.0, 11.0) == 11.0
    assert deadline_of({"timeout": 500_000}, 10.0, 11.0) == 10.5
    assert deadline_of({"timeout": 5_000_000}, 10.0, 11.0) == 11.0
    for wrong in (-1, "1", True):
        with pytest.raises(InvalidInference, match="timeout"):
            deadline_of({"timeout": wrong}, 10.0)
