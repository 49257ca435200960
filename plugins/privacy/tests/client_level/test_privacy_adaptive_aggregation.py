"""``dp-adaptive`` at the collector: the clipping norm finds its quantile, and noise is where it belongs."""

import json
from importlib.metadata import entry_points

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locex.api import Contribution, PlainMean
from locex.errors import InvalidConfiguration
from locex.schemas.base import validate
from locex_privacy.dp_adaptive.aggregation import AdaptiveMean
from locex_privacy.dp_adaptive.config import DpAdaptiveAggregationConfig

NODES = 60
RELAXED = settings(deadline=None, max_examples=30)  # each example is 150 rounds


def half(normal=np.zeros, **fields):
    fields = {"clip_count_stddev": 3.0} | fields
    return AdaptiveMean(validate(DpAdaptiveAggregationConfig, fields), normal)


def seeded(seed):
    return np.random.default_rng(seed).standard_normal


def told(*bits):
    return [Contribution([np.zeros(2, np.float32)], 1, {"dpfedavg_norm_bit": bit}) for bit in bits]


def norm_after(aggregation, *bits):
    aggregation.aggregate(1, [np.zeros(2, np.float32)], told(*bits))
    return aggregation.configure(2)["dpfedavg_clip_norm"]


# --- the clipping norm


@RELAXED
@given(start=st.floats(0.2, 5), quantile=st.floats(0.2, 0.8), server_side=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_the_norm_settles_at_the_quantile(start, quantile, server_side, seed):
    """Nodes' norms are log-normal; under client-side noise the bits that they tell are noised, as nodes do it."""
    rng, stddev = np.random.default_rng(seed), NODES / 20 if server_side else 0.5
    aggregation = half(
        rng.standard_normal,
        server_side_noising=server_side,
        init_clip_norm=start,
        noise_multiplier=0.5,
        clip_count_stddev=stddev,
        clip_norm_target_quantile=quantile,
    )
    share = []
    for _ in range(150):
        below = np.exp(rng.normal(size=NODES)) <= aggregation.configure(1)["dpfedavg_clip_norm"]
        share.append(below.mean())
        bits = below if server_side else below - 0.5 + stddev * rng.normal(size=NODES) > 0
        norm_after(aggregation, *bits.tolist())

    assert np.mean(share[50:]) == pytest.approx(quantile, abs=0.07)  # about four standard errors


def test_one_step_is_the_papers():
    clip_norm = norm_after(half(init_clip_norm=0.5, clip_norm_lr=0.3, clip_norm_target_quantile=0.2), 1, 1, 0, 0)

    assert clip_norm == pytest.approx(0.5 * np.exp(-0.3 * (0.5 - 0.2)))


def test_the_count_is_noised_at_the_collector_under_server_side_noise_only():
    ones = {"init_clip_norm": 1, "clip_count_stddev": 3.0}

    assert norm_after(half(np.ones, **ones), 1, 0) == pytest.approx(np.exp(-0.2 * ((1 + 3.0) / 2 - 0.5)))
    assert norm_after(half(pytest.fail, server_side_noising=False, **ones), 1, 0) == pytest.approx(1)


def test_bits_that_nodes_flipped_are_held_against_what_flipping_makes_of_the_quantile():
    from scipy import stats

    flipped = stats.norm.sf(1 / 1.6)
    fields = {"server_side_noising": False, "clip_count_stddev": 0.8, "clip_norm_target_quantile": 0.9}

    moved = norm_after(half(init_clip_norm=1, **fields), 1, 1, 1, 0)

    assert moved == pytest.approx(np.exp(-0.2 * (0.75 - (0.9 * (1 - 2 * flipped) + flipped))))


@pytest.mark.parametrize("bit", [True, 1, 1.0])
def test_a_bit_counts_once_however_the_wire_writes_it_and_is_not_left_for_reports(bit):
    contributions = told(bit, 0)
    aggregation = half(init_clip_norm=1)

    aggregation.aggregate(1, [np.zeros(2, np.float32)], contributions)

    assert aggregation.configure(2)["dpfedavg_clip_norm"] == pytest.approx(1)
    assert [one.metrics for one in contributions] == [{}, {}]


def test_nodes_that_tell_no_bit_do_not_count_for_the_norm():
    silent = Contribution([np.zeros(2, np.float32)], 1, {})
    aggregation = half(init_clip_norm=1)

    aggregation.aggregate(1, [np.zeros(2, np.float32)], [silent])
    assert aggregation.configure(2)["dpfedavg_clip_norm"] == 1
    aggregation.aggregate(2, [np.zeros(2, np.float32)], [silent, *told(1)])
    assert aggregation.configure(3)["dpfedavg_clip_norm"] == pytest.approx(np.exp(-0.1))


# --- noise of the mean


@pytest.mark.parametrize("nodes", [1, 20])
def test_the_mean_is_noised_for_the_nodes_that_came_and_by_the_norm_of_the_round(nodes):
    aggregation = half(seeded(1), init_clip_norm=0.5, noise_multiplier=1.2, clip_count_stddev=1.0)
    current = [np.full(200_000, 3, np.float32)]

    (new,) = aggregation.aggregate(1, current, [Contribution(current, 1, {"dpfedavg_norm_bit": True})] * nodes)

    stddev = (1.2**-2 - 2.0**-2) ** -0.5 * 0.5 / nodes
    assert (new - 3).std() == pytest.approx(stddev, rel=0.02)


def test_under_client_side_noise_the_mean_is_plain():
    aggregation = half(pytest.fail, server_side_noising=False)
    contributions = [Contribution([np.full(2, value, np.float32)], 10**value, {}) for value in (1, 3)]

    (new,) = aggregation.aggregate(1, [np.zeros(2, np.float32)], contributions)

    np.testing.assert_array_equal(new, np.full(2, 2, np.float32))


# --- what nodes are told, what is kept


def test_nodes_are_told_norm_and_noise_as_flowers_clients_read_them():
    server = half(noise_multiplier=1.5).configure(1)
    client = half(noise_multiplier=1.5, server_side_noising=False).configure(1)

    common = {"dpfedavg_clip_norm": 0.1, "dpfedavg_adaptive_clip_enabled": True}
    assert server == common | {"dpfedavg_noise_multiplier": 1.5}
    assert client == common | {"dpfedavg_noise_stddev": pytest.approx(0.1 * (1.5**-2 - 6.0**-2) ** -0.5)}
    assert all(isinstance(config["dpfedavg_clip_norm"], float) for config in (server, client))


def test_a_restarted_collector_goes_on_with_its_norm():
    first = half(np.ones)
    norm = norm_after(first, 1, 1)

    second = half()
    second.restore(json.loads(json.dumps(first.state())))

    assert second.configure(3)["dpfedavg_clip_norm"] == norm != 0.1


def test_the_installed_half_refuses_noise_that_cannot_be_and_averages_on_its_own():
    (entry,) = entry_points(group="locex.aggregation", name="dp-adaptive")
    plugin = entry.load()()
    model = plugin.locex_config_model()

    with pytest.raises(InvalidConfiguration, match="leaves nothing for the update"):
        validate(model, {"num_sampled_clients": 3})
    aggregation = plugin.locex_create_aggregation(validate(model, {"num_sampled_clients": 30}))
    assert not isinstance(aggregation, PlainMean)
    (first,), (second,) = (aggregation.aggregate(1, [np.zeros(100)], told_zeros()) for _ in range(2))
    assert not (first == second).any()


def told_zeros():
    return [Contribution([np.zeros(100)], 1, {})]
