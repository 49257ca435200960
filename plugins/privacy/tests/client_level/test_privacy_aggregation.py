"""``dp-fixed`` at the collector: an unweighted mean, with noise where the collector adds it."""

from importlib.metadata import entry_points

import numpy as np
import pytest

from locex.api import Contribution, PlainMean
from locex.errors import InvalidConfiguration
from locex.schemas.base import validate
from locex_privacy.client_level.aggregation import NoisyMean

NOISY = {"server_side_noising": True, "clip_norm": 1, "noise_multiplier": 2}


def plugin():
    (entry,) = entry_points(group="locex.aggregation", name="dp-fixed")
    return entry.load()()


def aggregation(**fields):
    return plugin().locex_create_aggregation(validate(plugin().locex_config_model(), fields))


def contribution(*tensors, examples=1):
    return Contribution([np.asarray(tensor, np.float32) for tensor in tensors], examples, {})


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


def test_where_nodes_noise_it_tells_nothing_and_gives_way_to_an_encrypted_sum():
    half = aggregation()
    half.restore(half.state())

    assert (half.configure(1), half.state()) == ({}, {})
    assert isinstance(half, PlainMean)
    assert half.plain_mean


@pytest.mark.parametrize("nodes", [1, 4, 50])
def test_the_noise_follows_the_nodes_that_really_contributed(nodes):
    half = NoisyMean(1.5, 2.0, 2.0, np.random.default_rng(nodes).standard_normal)
    current = [np.full((300, 400), 7, np.float32), np.ones(80_000, np.float32), np.array(3)]

    a, b, count = half.aggregate(1, current, [Contribution(current, 1, {})] * nodes)

    noise = np.concatenate([(a - 7).ravel(), b - 1])
    assert noise.std() == pytest.approx(2.0 * 1.5 / nodes, rel=0.02)  # 200,000 values: the standard error is 0.16 %
    assert abs(noise.mean()) < 0.03 / nodes
    assert count == 3


def test_what_a_node_did_not_clip_the_collector_clips():
    half = NoisyMean(2.0, 1.0, 1.0, np.zeros)
    current = [np.full(3, 1, np.float32), np.full(1, 1, np.float32)]
    inside, outside = contribution([2, 1, 1], [1]), contribution([1, 1, 1], [101], examples=10**6)

    first, second = half.aggregate(1, current, [inside, outside])

    np.testing.assert_allclose(first, [1.5, 1, 1])
    np.testing.assert_allclose(second, [1 + 2 / 2])


def test_one_node_more_or_less_moves_the_mean_by_no_more_than_the_noise_is_made_for():
    rng = np.random.default_rng(3)
    half = NoisyMean(0.5, 1.0, 1.0, np.zeros)
    current = [np.zeros(40, np.float32)]
    others = [contribution(rng.normal(size=40) * scale) for scale in (0.01, 1, 100)]

    (absent,) = half.aggregate(1, current, [*others, Contribution(current, 1, {})])
    (present,) = half.aggregate(1, current, [*others, contribution(np.full(40, 1e6))])

    assert np.linalg.norm(present - absent) == pytest.approx(0.5 / 4)


def test_the_installed_half_noises_with_the_systems_entropy_and_tells_nodes_what_they_may_count_on():
    half = aggregation(**NOISY)
    current = [np.zeros(50_000, np.float32)]

    (first,), (second,) = (half.aggregate(1, current, [Contribution(current, 1, {})] * 4) for _ in range(2))

    assert first.std() == pytest.approx(0.5, rel=0.03)
    assert not (first == second).any()
    assert half.configure(1) == {"dpfedavg_clip_norm": 1, "dpfedavg_noise_multiplier": 2}
    assert not half.plain_mean


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"server_side_noising": True}, "clip_norm and noise_multiplier are required"),
        (NOISY | {"noise_multiplier": None}, "clip_norm and noise_multiplier are required"),
        (NOISY | {"noise_multiplier": 0}, "/noise_multiplier"),
        (NOISY | {"clip_norm": 0}, "/clip_norm"),
        ({"delta": 1e-5}, "unknown key"),
    ],
)
def test_noise_that_would_not_be_there_is_refused(fields, part):
    with pytest.raises(InvalidConfiguration, match=part):
        aggregation(**fields)
