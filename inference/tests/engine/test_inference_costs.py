"""Where a version runs, by what it costs."""

from __future__ import annotations

import pytest

from locex_inference.engine.lane import _rows_within


@pytest.mark.parametrize(
    ("costs", "rows"),
    [
        ({}, 0),
        ({1: 1e-3}, 0),
        ({1: 100e-6, 2: 200e-6, 4: 400e-6}, 3),
        ({1: 100e-6, 2: 1.0}, 1),
        ({1: 10e-6, 10: 100e-6}, 30),
        ({1: 400e-6, 2: 200e-6}, 3),
    ],
)
def test_examples_that_fit_into_the_time_of_the_loop(costs, rows):
    assert _rows_within(costs, 305e-6) == rows
