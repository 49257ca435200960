"""``dp-adaptive`` on the node: whose clipping norm, whose noise, what is charged and as what."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locex.api import PrivacyReview, Update
from locex.errors import InvalidConfiguration, PrivacyRefused
from locex.schemas.base import validate
from locex_privacy.client_level.clipping import clip_factor, norm_of
from locex_privacy.dp_adaptive.config import DpAdaptiveConfig
from locex_privacy.dp_adaptive.mechanism import DpAdaptive
from locex_privacy.dp_adaptive.split import flip_probability

HONEST = "client (if the server is honest)"
TOLD = {"dpfedavg_clip_norm": 1.0, "dpfedavg_adaptive_clip_enabled": True}
SERVER = {"server_side_noising": True, "clip_count_stddev": 2.0}
RELAXED = settings(deadline=None)  # the machine may be busy


def seeded(seed=0):
    return np.random.default_rng(seed).standard_normal


def released(mechanism, config, change, examples=321):
    """Run one round in which training adds ``change`` to every coordinate; return what leaves and the update's norm."""
    reference = {"w": np.zeros((200, 200)), "b": np.zeros(10_000), "steps": np.array(7)}
    trained = {"w": reference["w"] + change, "b": reference["b"] + change, "steps": np.array(9)}
    mechanism.before_fit(config)
    update = mechanism.outgoing(Update(trained, reference, examples, {"loss": 0.5, "accuracy": 1.0}), config)
    return update, float(np.sqrt(50_000) * abs(change))


def flat(update):
    return np.concatenate([update.parameters["w"].ravel(), update.parameters["b"]])


# --- the clipping norm


@RELAXED
@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=5), min_size=1, max_size=4), st.floats(1e-3, 1e3))
def test_what_is_clipped_is_no_longer_than_the_norm_and_keeps_its_direction(vectors, clip_norm):
    tensors = [np.array(vector) for vector in vectors]
    zeros = [np.zeros_like(tensor) for tensor in tensors]

    norm = norm_of(zip(tensors, zeros, strict=True))
    factor = clip_factor(norm, clip_norm)

    assert norm == pytest.approx(np.linalg.norm(np.concatenate(tensors)), rel=1e-12)
    assert 0 < factor <= 1
    assert norm_of((factor * tensor, zero) for tensor, zero in zip(tensors, zeros, strict=True)) <= clip_norm * (
        1 + 1e-12
    )
    assert factor == 1 or norm > clip_norm


@pytest.mark.parametrize("server_side", [True, False])
@pytest.mark.parametrize(("told", "followed"), [(0.02, 0.02), (3, 3), (5.0, 5.0), (1e30, 5.0)])
def test_the_servers_norm_is_followed_up_to_the_nodes_own_bound(site, server_side, told, followed):
    mechanism = site.adaptive(
        np.zeros, server_side_noising=server_side, clip_count_stddev=1, init_clip_norm=0.5, max_clip_norm=5
    )

    update, _ = released(mechanism, TOLD | {"dpfedavg_clip_norm": told}, change=1.0)

    assert np.linalg.norm(flat(update)) == pytest.approx(followed)
    assert update.parameters["steps"] == 7


def test_the_bound_is_a_hundred_times_the_first_norm_unless_given(site):
    update, _ = released(site.adaptive(np.zeros), TOLD | {"dpfedavg_clip_norm": 1e9}, change=1.0)

    assert np.linalg.norm(flat(update)) == pytest.approx(10)


def test_the_bit_is_of_the_norm_that_the_server_named(site):
    """Else a norm that the node does not follow would rise for ever, and the server's noise with it."""
    mechanism = site.adaptive(pytest.fail, max_clip_norm=5, **SERVER)

    update, norm = released(mechanism, TOLD | {"dpfedavg_clip_norm": 300.0}, change=1.0)

    assert 5 < norm < 300
    assert np.linalg.norm(flat(update)) == pytest.approx(5)
    assert update.metrics == {"dpfedavg_norm_bit": True}


def test_newer_flower_strategies_name_the_norm_otherwise(site):
    update, _ = released(site.adaptive(np.zeros), {"clipping_norm": 0.25}, change=1.0)

    assert np.linalg.norm(flat(update)) == pytest.approx(0.25)
    assert update.metrics == {}


@pytest.mark.parametrize("norm", [0, -1.0, float("nan"), float("inf"), "1", True, b"1"])
def test_a_norm_that_is_none_is_refused_before_anything_is_charged(site, norm):
    with pytest.raises(PrivacyRefused, match="no positive number"):
        site.adaptive().before_fit(TOLD | {"dpfedavg_clip_norm": norm})

    assert not site.ledger.events


# --- noise of the node


@pytest.mark.parametrize(("told", "followed"), [(2.0, 2.0), (1e6, 10.0)])
def test_the_nodes_noise_is_a_multiple_of_the_norm_that_it_followed(site, told, followed):
    mechanism = site.adaptive(seeded(), noise_multiplier=0.6, clip_count_stddev=0.5)
    config = TOLD | {"dpfedavg_clip_norm": told, "dpfedavg_noise_stddev": 1e-9}  # what the server asks for binds nobody

    update, _ = released(mechanism, config, change=0.0)

    stddev = (0.6**-2 - 1.0**-2) ** -0.5 * followed
    assert flat(update).std() == pytest.approx(stddev, rel=0.02)  # 50,000 values: the standard error is 0.3 %
    assert np.count_nonzero(flat(update)) == 50_000


def test_without_a_count_stddev_the_bit_gets_noise_of_z(site):
    update, _ = released(site.adaptive(seeded(), noise_multiplier=1.5), TOLD, change=0.0)

    assert flat(update).std() == pytest.approx(1.5 * 2 / 3**0.5, rel=0.02)


@pytest.mark.parametrize("change", [1e-6, 1.0])
def test_the_nodes_bit_is_true_as_often_as_its_noise_allows(site, change):
    mechanism = site.adaptive(seeded(), noise_multiplier=0.5, clip_count_stddev=0.8)
    reference, trained = {"w": np.zeros(4)}, {"w": np.full(4, change)}
    bits = []
    for _ in range(2000):
        mechanism.before_fit(TOLD)
        bits.append(mechanism.outgoing(Update(trained, reference, 1, {}), TOLD).metrics["dpfedavg_norm_bit"])
        site.ledgers.clear()

    below = change * 2 <= 1
    wrong = np.mean([bit is not below for bit in bits])
    assert wrong == pytest.approx(flip_probability(0.8), abs=0.05)  # 4.5 standard errors


def test_one_round_charges_update_and_bit_together(site):
    mechanism = site.adaptive(noise_multiplier=2, clip_count_stddev=1.5)
    for _ in range(2):
        update, _ = released(mechanism, TOLD, change=0.0)

    assert site.ledger.read()[1] == [{"mechanism": "gaussian", "noise_multiplier": 2.0}] * 2
    assert site.epsilon() > 0
    assert set(update.metrics) == {"dpfedavg_norm_bit"}
    assert update.examples == 1


def test_a_bit_that_nobody_asked_for_is_not_told(site):
    update, _ = released(site.adaptive(), {}, change=0.0)

    assert update.metrics == {}


# --- noise of the server


def test_under_server_side_noise_the_update_is_clipped_and_the_bit_true(site):
    mechanism = site.adaptive(pytest.fail, **SERVER)

    short, norm = released(mechanism, TOLD, change=1e-4)
    long, _ = released(mechanism, TOLD, change=1.0)

    assert np.linalg.norm(flat(short)) == pytest.approx(norm)
    assert np.linalg.norm(flat(long)) == pytest.approx(1)
    assert [one.metrics for one in (short, long)] == [{"dpfedavg_norm_bit": True}, {"dpfedavg_norm_bit": False}]
    assert (short.examples, long.examples) == (1, 1)


def test_under_server_side_noise_epsilon_says_on_what_it_rests(site):
    site.adaptive(noise_multiplier=1.0, **SERVER).before_fit(TOLD)

    assert site.ledgers[HONEST].read()[1] == [{"mechanism": "gaussian", "noise_multiplier": 1.0}]
    assert not site.ledger.events
    assert site.epsilon(HONEST) == pytest.approx(4.38, abs=0.01)


def test_who_trusts_the_server_has_spent_what_was_noised_at_the_node_too(site, site_of):
    site.mechanism(noise_multiplier=1).before_fit({})
    site.adaptive(noise_multiplier=2, **SERVER).before_fit(TOLD)

    together = site_of()
    for multiplier in (1, 2):
        together.mechanism(noise_multiplier=multiplier).before_fit({})
    assert site.epsilon(HONEST) == pytest.approx(together.epsilon())
    with pytest.raises(PrivacyRefused, match="max_epsilon=5"):
        site.adaptive(noise_multiplier=2, max_epsilon=5, **SERVER).before_fit(TOLD)
    site.mechanism(noise_multiplier=1, max_epsilon=7).before_fit({})  # its own ε holds against the server, without them
    assert len(site.ledger.events) == 2


def test_a_charge_that_another_unit_overtook_is_made_again(site):
    plain, read = site.ledger, site.ledger.read
    overtaken = iter([True])

    def racing():
        answer = read()
        if next(overtaken, False):
            plain.append(answer[0], {"mechanism": "gaussian", "noise_multiplier": 1.0})
        return answer

    plain.read = racing
    site.adaptive(noise_multiplier=2, **SERVER).before_fit(TOLD)

    assert len(site.ledgers[HONEST].events) == 2
    assert len(plain.events) == 1


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({}, "sends no dpfedavg_clip_norm"),
        (TOLD | {"dpfedavg_noise_stddev": 0.5}, "leaves the noise to its nodes"),
        (TOLD | {"dpfedavg_noise_multiplier": 0.9}, "multiplier 0.9, dp-adaptive counts on 1"),
        (TOLD | {"dpfedavg_noise_multiplier": 0.0}, "no positive number"),
    ],
)
def test_a_server_that_seems_to_add_too_little_noise_is_refused(site, config, part):
    with pytest.raises(PrivacyRefused, match=part):
        site.adaptive(noise_multiplier=1.0, **SERVER).before_fit(config)

    assert not site.ledgers[HONEST].events


def test_dp_fixed_takes_noise_of_the_server_too(site):
    mechanism = site.mechanism(pytest.fail, server_side_noising=True, clip_norm=0.5)

    update, _ = released(mechanism, {"dpfedavg_clip_norm": 2.0, "dpfedavg_noise_multiplier": 1.0}, change=1.0)

    assert np.linalg.norm(flat(update)) == pytest.approx(0.5)  # a server may lower a fixed norm, not raise it
    assert site.epsilon(HONEST) > 0
    with pytest.raises(PrivacyRefused, match="seems to add none"):
        mechanism.before_fit({})


# --- weights


@pytest.mark.parametrize(("examples", "weight"), [(50, 0.5), (100, 1.0), (10**6, 1.0)])
def test_weights_are_capped_and_never_told(site, examples, weight):
    update, _ = released(site.adaptive(np.zeros, weight_cap=100), TOLD, change=1.0, examples=examples)

    assert np.linalg.norm(flat(update)) == pytest.approx(weight)
    assert update.examples == 1


# --- configuration


def test_the_older_field_names_and_defaults():
    given = {
        "num_sampled_clients": "40",
        "init_clip_norm": "0.1",
        "noise_multiplier": "1.0",
        "server_side_noising": "True",
        "clip_count_stddev": None,
        "clip_norm_target_quantile": "0.5",
        "clip_norm_lr": "0.2",
    }

    assert validate(DpAdaptiveConfig, given) == validate(DpAdaptiveConfig, {"num_sampled_clients": 40})
    assert validate(DpAdaptiveConfig, given).count_stddev == 2.0


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({}, "num_sampled_clients or clip_count_stddev is required"),
        ({"num_sampled_clients": 1}, "leaves nothing for the update"),
        ({"num_sampled_clients": 10}, "leaves nothing for the update"),
        ({"num_sampled_clients": 30, "noise_multiplier": 3}, "more than half of noise_multiplier=3"),
        ({"server_side_noising": False, "clip_count_stddev": 0.5}, "leaves nothing for the update"),
        ({"num_sampled_clients": 30, "noise_multiplier": 0}, "/noise_multiplier"),
        ({"num_sampled_clients": 30, "noise_multiplier": -1}, "/noise_multiplier"),
        ({"num_sampled_clients": 30, "clip_count_stddev": 0}, "/clip_count_stddev"),
        ({"num_sampled_clients": 30, "clip_count_stddev": "nan"}, "/clip_count_stddev"),
        ({"num_sampled_clients": 30, "clip_norm_target_quantile": 1.1}, "/clip_norm_target_quantile"),
        ({"num_sampled_clients": 30, "clip_norm_lr": 0}, "/clip_norm_lr"),
        ({"num_sampled_clients": 30, "init_clip_norm": 0}, "/init_clip_norm"),
        ({"num_sampled_clients": 30, "max_clip_norm": 0}, "/max_clip_norm"),
        ({"num_sampled_clients": 30, "epsilon": 1}, "unknown key"),
    ],
)
def test_noise_that_cannot_be_is_refused_and_never_none(fields, part):
    with pytest.raises(InvalidConfiguration, match=part):
        validate(DpAdaptiveConfig, fields)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"num_sampled_clients": 40}, ["only if the server is honest"]),
        ({"num_sampled_clients": 11}, ["only if the server is honest", "gets 2.4 instead of 1"]),
        ({"server_side_noising": False}, []),
    ],
)
def test_a_job_is_told_whom_it_trusts_and_where_its_noise_goes(fields, told):
    config = validate(DpAdaptiveConfig, fields)

    warnings = DpAdaptive().locex_review_privacy(config, PrivacyReview({"dp-adaptive": config}, "flower-grpc", "torch"))

    assert len(warnings) == len(told)
    assert all(part in warning for part, warning in zip(told, warnings, strict=True))
