"""``dp-fixed`` at the collector: an unweighted mean."""

from importlib.metadata import entry_points

import numpy as np
import pytest

from locex.api import Contribution
from locex.errors import InvalidConfiguration
from locex.schemas.base import validate


def plugin():
    (entry,) = entry_points(group="locex.aggregation", name="dp-fixed")
    return entry.load()()


def aggregation():
    return plugin().locex_create_aggregation()


def test_every_node_counts_the_same_whatever_it_claims():
    current = [np.zeros((2, 2), np.float32), np.array(5, np.int64)]
    contributions = [
        Contribution([np.full((2, 2), value, np.float32), np.array(value)], examples, {"loss": 1.0})
        for value, examples in ((1, 1), (2, 10**6), (6, 3))
    ]

    weights, count = aggregation().aggregate(1, current, contributions)

    np.testing.assert_array_equal(weights, np.full((2, 2), 3, np.float32), strict=True)
    np.testing.assert_array_equal(count, np.array(5, np.int64), strict=True)
    np.testing.assert_array_equal(contributions[0].parameters[0], np.ones((2, 2)))


def test_sums_are_kept_in_double_precision():
    values = [2.0**24, 1.0, 1.0, 1.0]
    contributions = [Contribution([np.array([value], np.float32)], 1, {}) for value in values]

    (mean,) = aggregation().aggregate(1, [np.zeros(1, np.float32)], contributions)

    assert mean[0] == np.float32((2.0**24 + 3) / 4)


def test_it_tells_nodes_nothing_and_remembers_nothing():
    half = aggregation()
    half.restore(half.state())

    assert (half.configure(1), half.state()) == ({}, {})
    with pytest.raises(InvalidConfiguration, match="unknown key"):
        validate(plugin().locex_config_model(), {"clip_norm": 1})
