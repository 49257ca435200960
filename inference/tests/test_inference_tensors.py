"""Tensors that cost more to read than they are: refused by their form, before NumPy gets them."""

from __future__ import annotations

import pytest

from locex_inference.errors import InvalidTensor
from locex_inference.tensors import from_raw, from_values

FAR = 2**62


def test_text_among_numbers_is_refused_before_it_widens_them_all():
    with pytest.raises(InvalidTensor, match="'x' holds text"):
        from_values(["a" * 10**6, *[1.0] * 10**6], "FP32", [10**6 + 1], "x")  # as an array of texts: 4 TB
    with pytest.raises(InvalidTensor, match="'x' holds text"):
        from_values([[1.0, 2.0], [3.0, "a" * 10**6]], "FP32", [2, 2], "x")


@pytest.mark.parametrize("shape", [[FAR] * 65, [FAR] * 10**6, [1] * 65])
def test_more_axes_than_an_array_has_are_refused_before_they_are_multiplied(shape):
    with pytest.raises(InvalidTensor, match=f"{len(shape)} axes"):
        from_raw(b"", "FP32", shape, "x")


def test_the_largest_shape_is_told_in_full():
    with pytest.raises(InvalidTensor, match="bytes, 4 arrived"):
        from_raw(b"1234", "FP32", [FAR] * 64, "x")
