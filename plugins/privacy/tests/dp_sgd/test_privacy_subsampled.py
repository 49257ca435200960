"""The accountant of Poisson-subsampled Gaussian mechanisms against other ways to the same number; sampling itself."""

import math

import numpy as np
import pytest

from locex.errors import PrivacyRefused
from locex_privacy.accountant import calibrated, epsilon, gaussian_event, poisson_gaussian_event, spent
from locex_privacy.noise import system_choice


def by_definition(multiplier, rate, delta):
    """ε of one step from the definition, δ(ε) = ∫ max(0, p − e^ε q), the worse of the two directions."""
    from scipy import integrate, optimize, stats

    x = np.linspace(-12 * multiplier, 1 + 12 * multiplier, 200_001)
    plain = stats.norm.pdf(x, 0, multiplier)
    mixed = (1 - rate) * plain + rate * stats.norm.pdf(x, 1, multiplier)

    def excess(value, above, below):
        return integrate.trapezoid(np.maximum(0, above - math.exp(value) * below), x) - delta

    return max(optimize.brentq(excess, 0, 50, args=pair) for pair in ((mixed, plain), (plain, mixed)))


@pytest.mark.parametrize(("multiplier", "rate"), [(1.0, 0.2), (0.7, 0.05), (2.0, 0.5)])
def test_one_step_is_the_subsampled_gaussian_mechanism(multiplier, rate):
    exact = by_definition(multiplier, rate, 1e-4)

    found = spent([poisson_gaussian_event(multiplier, rate, 1)], 1e-4)

    assert found.accountant == "pld"
    assert exact - 1e-6 <= found.epsilon <= exact + 0.01


@pytest.mark.parametrize(("multiplier", "rate", "steps"), [(1.0, 0.01, 10_000), (1.2, 0.178, 240), (4.0, 0.5, 500)])
def test_many_steps_agree_with_opacus_and_lie_below_renyi(multiplier, rate, steps):
    from opacus.accountants import PRVAccountant
    from opacus.accountants.analysis import rdp

    found = epsilon([poisson_gaussian_event(multiplier, rate, steps)], 1e-5)

    prv = PRVAccountant()
    prv.history = [(multiplier, rate, steps)]
    assert found == pytest.approx(prv.get_epsilon(1e-5), abs=0.02)
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
    divergences = rdp.compute_rdp(q=rate, noise_multiplier=multiplier, steps=steps, orders=orders)
    assert found < rdp.get_privacy_spent(orders=orders, rdp=divergences, delta=1e-5)[0]


@pytest.mark.parametrize(
    ("multiplier", "rate", "steps"), [(1000, 0.178, 240), (20, 0.01, 100), (200, 0.1, 1000), (0.8, 1e-4, 100_000)]
)
def test_small_losses_are_not_lost_in_the_buckets(multiplier, rate, steps):
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    fine = PLDAccountant(value_discretization_interval=5e-5)
    fine.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(multiplier)), steps)

    found = epsilon([poisson_gaussian_event(multiplier, rate, steps)], 1e-5)

    assert found == pytest.approx(fine.get_epsilon(1e-5), rel=0.03)


def test_rounds_are_one_long_training_to_the_accountant():
    rounds = [poisson_gaussian_event(1.1, 0.1, 20)] * 12

    assert epsilon(rounds, 1e-5) == pytest.approx(epsilon([poisson_gaussian_event(1.1, 0.1, 240)], 1e-5), rel=1e-9)


def test_events_of_both_kinds_compose_in_one_ledger():
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    ledger = [
        gaussian_event(3.0),
        poisson_gaussian_event(1.0, 0.1, 50),
        gaussian_event(5.0),
        poisson_gaussian_event(2.0, 0.3, 30),
        poisson_gaussian_event(4.0, 1.0, 7),
    ]
    fine = PLDAccountant(value_discretization_interval=1e-4)
    fine.compose(PoissonSampledDpEvent(0.1, GaussianDpEvent(1.0)), 50)
    fine.compose(PoissonSampledDpEvent(0.3, GaussianDpEvent(2.0)), 30)
    for multiplier, count in ((3.0, 1), (5.0, 1), (4.0, 7)):
        fine.compose(GaussianDpEvent(multiplier), count)

    found = spent(ledger, 1e-5)

    assert found.accountant == "pld"
    assert found.epsilon == pytest.approx(fine.get_epsilon(1e-5), abs=0.01)
    assert found.epsilon > max(epsilon(ledger[:1], 1e-5), epsilon(ledger[1:2], 1e-5))
    assert found == spent(ledger[::-1], 1e-5) or found.epsilon == pytest.approx(spent(ledger[::-1], 1e-5).epsilon)


def test_without_subsampling_the_answer_is_exact():
    found = spent([poisson_gaussian_event(4.0, 1.0, 16)], 1e-5)

    assert found.accountant == "gaussian"
    assert found.epsilon == epsilon([gaussian_event(1.0)], 1e-5)


def test_where_distributions_come_to_no_value_renyi_reports_no_less():
    ledger = [poisson_gaussian_event(1.0, 0.01, 1000), gaussian_event(4.0)]

    found = spent(ledger, 1e-20)  # below the mass that distributions leave out at their ends

    assert found.accountant == "rdp"
    assert math.isfinite(found.epsilon)
    assert found.epsilon > spent(ledger, 1e-9).epsilon


@pytest.mark.parametrize("multiplier", [1e-2, 0.1, 1.0, 100.0, 1e4])
def test_any_noise_has_an_answer_that_grows_with_steps(multiplier):
    few, more = (epsilon([poisson_gaussian_event(multiplier, 0.1, steps)], 1e-5) for steps in (10, 100))

    assert 0 <= few < more < math.inf


def test_a_ledger_of_many_jobs_is_accounted_for():
    ledger = [poisson_gaussian_event(4 + job / 100, 0.02, 5) for job in range(30)]

    before = epsilon(ledger, 1e-5)

    assert before < epsilon([*ledger, ledger[-1]], 1e-5) < epsilon([*ledger, ledger[-1], ledger[0]], 1e-5)
    assert before == pytest.approx(epsilon([poisson_gaussian_event(4.145, 0.02, 150)], 1e-5), rel=0.01)


@pytest.mark.parametrize(
    "event",
    [
        {"mechanism": "poisson-gaussian", "noise_multiplier": 1.0},
        poisson_gaussian_event(0, 0.1, 1),
        poisson_gaussian_event(1, 0, 1),
        poisson_gaussian_event(1, 1.1, 1),
        poisson_gaussian_event(1, 0.1, 0),
        poisson_gaussian_event(1, 0.1, 1.5),
        poisson_gaussian_event(math.nan, 0.1, 1),
        poisson_gaussian_event(1, "0.1", 1),
        poisson_gaussian_event(1, 0.1, 1) | {"accountant": "rdp"},
    ],
)
def test_what_cannot_be_accounted_for_is_never_left_out(event):
    with pytest.raises(PrivacyRefused, match="cannot be accounted for"):
        epsilon([gaussian_event(1.0), event], 1e-5)


@pytest.mark.parametrize(("target", "rate", "steps"), [(1, 0.178, 240), (8, 0.01, 1000), (3, 1.0, 10), (500, 0.5, 4)])
def test_calibrated_noise_spends_what_was_asked_for_and_no_more(target, rate, steps):
    multiplier = calibrated(target, 1e-5, rate, steps)

    assert epsilon([poisson_gaussian_event(multiplier, rate, steps)], 1e-5) <= target
    assert epsilon([poisson_gaussian_event(multiplier / 1.005, rate, steps)], 1e-5) > target


def test_a_target_that_no_noise_reaches_is_refused():
    with pytest.raises(PrivacyRefused, match="no noise makes"):
        calibrated(1e-9, 1e-12, 1.0, 10**6)


# --- sampling


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.5, 1.0])
def test_each_index_is_chosen_for_itself_with_the_rate(rate):
    chosen = [system_choice(2000, rate) for _ in range(200)]

    counts = np.array([len(one) for one in chosen])
    assert counts.sum() / 400_000 == pytest.approx(rate, abs=6 * math.sqrt(rate * (1 - rate) / 400_000))
    assert counts.var() == pytest.approx(2000 * rate * (1 - rate), rel=0.7)  # binomial, not a fixed size
    each = np.bincount(np.concatenate(chosen), minlength=2000)
    assert abs(each - 200 * rate).max() <= 8 * math.sqrt(200 * rate * (1 - rate))
    assert all((np.diff(one) > 0).all() for one in chosen)


def test_choices_never_repeat_whatever_the_seed():
    np.random.seed(0)  # noqa: NPY002 -- a seed must not reach the choice
    first = system_choice(1000, 0.5)
    np.random.seed(0)  # noqa: NPY002 -- likewise
    assert not np.array_equal(first, system_choice(1000, 0.5))
