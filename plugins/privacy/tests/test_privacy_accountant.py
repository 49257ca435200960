"""The accountant against other ways to the same number."""

import math
import subprocess
import sys

import pytest

from locex_privacy.accountant import epsilon, gaussian_event


def by_definition(sigma, delta):
    """ε from the definition: δ(ε) = ∫ max(0, p − e^ε q), integrated numerically; sensitivity 1."""
    from scipy import integrate, optimize, stats

    def excess(value):
        crossing = 0.5 + value * sigma**2 * -1  # p = N(0, σ²) beats e^ε q = e^ε N(1, σ²) below it
        area, _ = integrate.quad(
            lambda x: stats.norm.pdf(x, 0, sigma) - math.exp(value) * stats.norm.pdf(x, 1, sigma),
            crossing - 30 * sigma,
            crossing,
            epsabs=1e-14,
            limit=500,
        )
        return area - delta

    return optimize.brentq(excess, 0, 100)


@pytest.mark.parametrize(("multiplier", "delta"), [(0.5, 1e-5), (1, 1e-5), (1, 1e-3), (4, 1e-6)])
def test_one_round_is_the_gaussian_mechanism(multiplier, delta):
    assert epsilon([gaussian_event(multiplier)], delta) == pytest.approx(by_definition(multiplier, delta), rel=1e-4)


def test_rounds_of_different_noise_agree_with_privacy_loss_distributions():
    from dp_accounting import GaussianDpEvent
    from dp_accounting.pld import PLDAccountant

    multipliers = [3.0, 4.0, 4.0, 10.0]
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    for multiplier in multipliers:
        accountant.compose(GaussianDpEvent(multiplier))
    bound = accountant.get_epsilon(1e-5)  # an upper bound, from above by its grid

    exact = epsilon([gaussian_event(multiplier) for multiplier in multipliers], 1e-5)

    assert exact <= bound
    assert exact == pytest.approx(bound, abs=0.01)


@pytest.mark.parametrize("multiplier", [1e-3, 0.1, 1, 100])
def test_it_is_below_the_bound_by_renyi_divergences(multiplier):
    from dp_accounting import GaussianDpEvent
    from dp_accounting.rdp import RdpAccountant

    exact = epsilon([gaussian_event(multiplier)] * 10, 1e-5)

    bound = RdpAccountant(orders=[1 + 10 ** (p / 20) for p in range(-100, 100)])
    assert exact <= bound.compose(GaussianDpEvent(multiplier), 10).get_epsilon(1e-5)


def test_the_ends_of_the_scale():
    assert epsilon([], 1e-5) == 0
    assert epsilon([gaussian_event(1e6)], 1e-12) == pytest.approx(0, abs=1e-4)
    assert epsilon([gaussian_event(1e-3)], 1e-5) > 5e5


@pytest.mark.parametrize(
    "module",
    ["locex_privacy.dp_fixed.mechanism", "locex_privacy.dp_fixed.aggregation", "locex_privacy.dp_sgd.plugin"],
)
def test_naming_the_plugin_imports_no_accountant_and_no_framework(module):
    heavy = ("dp_accounting", "scipy", "torch", "opacus", "tensorflow", "keras")
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]"
