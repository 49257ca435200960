"""The mathematics of adaptive clipping: shares of the noise, flipped bits, and the ε of it all."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locex_privacy.accountant import epsilon, gaussian_event
from locex_privacy.dp_adaptive.split import flip_probability, update_multiplier

RELAXED = settings(deadline=None)  # the machine may be busy
MULTIPLIERS = st.floats(1e-3, 1e3)


@RELAXED
@given(MULTIPLIERS, st.floats(1.001, 1e3))
def test_update_and_count_together_are_the_configured_mechanism(multiplier, ratio):
    count_stddev = multiplier * ratio / 2

    update = update_multiplier(multiplier, count_stddev)

    assert update >= multiplier
    assert update**-2 + (2 * count_stddev) ** -2 == pytest.approx(multiplier**-2, rel=1e-9)


@RELAXED
@given(MULTIPLIERS, st.floats(0, 1))
def test_a_count_that_spends_all_is_refused(multiplier, ratio):
    with pytest.raises(ValueError, match="leaves nothing for the update"):
        update_multiplier(multiplier, max(multiplier * ratio / 2, 1e-300))


@pytest.mark.parametrize("nodes", range(1, 11))
def test_the_older_implementations_silent_zero_is_refused(nodes):
    """z = 1 and fewer than ten nodes gave a complex root and σ ≈ 10⁻¹⁸, ten gave a division by zero."""
    with pytest.raises(ValueError, match="num_sampled_clients / 20"):
        update_multiplier(1.0, nodes / 20)
    assert update_multiplier(1.0, 11 / 20) == pytest.approx(2.400, abs=1e-3)


@pytest.mark.parametrize(("multiplier", "count_stddev"), [(1.0, 0.55), (0.8, 0.8), (3.0, 5.0)])
def test_its_epsilon_is_that_of_the_two_releases_composed(multiplier, count_stddev):
    from dp_accounting import GaussianDpEvent
    from dp_accounting.pld import PLDAccountant

    update = update_multiplier(multiplier, count_stddev)
    charged = epsilon([gaussian_event(multiplier)] * 3, 1e-5)

    released = [gaussian_event(update), gaussian_event(2 * count_stddev)] * 3  # the count of bits less ½ has ½
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(GaussianDpEvent(update), 3).compose(GaussianDpEvent(2 * count_stddev), 3)
    assert charged == pytest.approx(epsilon(released, 1e-5), rel=1e-9)
    assert charged == pytest.approx(accountant.get_epsilon(1e-5), abs=0.01)


@RELAXED
@given(st.floats(1e-2, 1e2))
def test_bits_flip_as_a_normal_tail_says(stddev):
    from scipy import stats

    assert flip_probability(stddev) == pytest.approx(stats.norm.sf(0.5 / stddev), rel=1e-9, abs=1e-300)


@RELAXED
@given(st.floats(0.2, 10))
def test_a_flipped_bit_is_as_private_as_its_noise(stddev):
    """Thresholding is post-processing: randomised response never spends more than the Gaussian behind it."""
    flipped = flip_probability(stddev)
    pure = math.log((1 - flipped) / flipped)
    delta = 1e-5

    # randomised response at δ: the largest of p − e^ε q over its two outcomes
    spent = math.log((1 - flipped - delta) / flipped) if 1 - flipped - delta > flipped else 0.0
    assert spent <= pure
    assert spent <= epsilon([gaussian_event(stddev)], delta) + 1e-9  # bit 0 against bit 1: sensitivity 1
