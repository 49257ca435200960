"""How much privacy a ledger's events have spent. The one module that knows dp-accounting."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from locex.errors import PrivacyRefused

log = logging.getLogger(__name__)

GAUSSIAN = "gaussian"
POISSON_GAUSSIAN = "poisson-gaussian"

_FIELDS = {
    GAUSSIAN: {"mechanism", "noise_multiplier"},
    POISSON_GAUSSIAN: {"mechanism", "noise_multiplier", "sampling_rate", "steps"},
}
_COARSE, _FINE = 1e-3, 1e-4
"""Buckets of privacy losses. The finer they are, the less is lost to them, and the longer it takes."""
_GROWING = 0.3
"""Below this multiplier losses grow with 1/z², and buckets with them: their number does not."""


@dataclass(frozen=True, slots=True)
class Spent:
    """The ε of a ledger's events, and how it was found."""

    epsilon: float
    accountant: Literal["gaussian", "pld", "rdp"]
    """``gaussian`` is exact, ``pld`` an upper bound by privacy loss distributions, ``rdp`` a looser one."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Steps that are alike: each example takes part with a probability, the noise is that of a multiplier."""

    noise_multiplier: float
    sampling_rate: float


_Counted = tuple[tuple[_Kind, int], ...]


def gaussian_event(noise_multiplier: float) -> dict[str, Any]:
    """Return the event of one Gaussian mechanism with σ = noise_multiplier · sensitivity, for a ledger."""
    return {"mechanism": GAUSSIAN, "noise_multiplier": noise_multiplier}


def poisson_gaussian_event(noise_multiplier: float, sampling_rate: float, steps: int) -> dict[str, Any]:
    """Return the event of so many Gaussian mechanisms, each on examples that take part with ``sampling_rate``."""
    return {
        "mechanism": POISSON_GAUSSIAN,
        "noise_multiplier": noise_multiplier,
        "sampling_rate": sampling_rate,
        "steps": steps,
    }


def epsilon(events: Sequence[Mapping[str, Any]], delta: float) -> float:
    """Return the ε, at ``delta``, of all events together; see `spent`."""
    return spent(events, delta).epsilon


def spent(events: Sequence[Mapping[str, Any]], delta: float) -> Spent:
    """Return the ε, at ``delta``, of all events together, each chosen with knowledge of those before.

    Gaussian mechanisms compose exactly to one whose multiplier z has z⁻² = Σ zᵢ⁻² (Dong, Roth, Su 2022, corollary
    3.3); its ε is the analytic one of Balle and Wang (2018), so nothing is lost to a bound or a grid. With subsampled
    ones among them, privacy loss distributions are composed (Koskela et al. 2020; Doroshenko et al. 2022), which never
    report too little; where they come to no value, Rényi divergences do (Mironov et al. 2019), which report more.
    Neighbours differ by one unit that is there or not. Raise `PrivacyRefused` for an event of any other mechanism: it
    is never left out.
    """
    composed, subsampled = _classes(events)
    if not subsampled:
        return Spent(_analytic(composed, delta) if composed else 0.0, "gaussian")
    kinds = tuple(subsampled.items())
    by_losses = _by_losses(kinds, composed, delta)
    if by_losses is not None:
        return Spent(by_losses, "pld")
    return Spent(_by_divergences(kinds, composed, delta), "rdp")


def calibrated(epsilon_wanted: float, delta: float, sampling_rate: float, steps: int) -> float:
    """Return the least noise multiplier, up to 0.1 %, with which so many steps spend no more than an ε."""

    def enough(multiplier: float) -> bool:
        return epsilon([poisson_gaussian_event(multiplier, sampling_rate, steps)], delta) <= epsilon_wanted

    high = 1.0
    while not enough(high):
        high *= 2
        if high > _MOST_NOISE:
            raise PrivacyRefused(
                f"no noise makes {steps} steps with a sampling rate of {sampling_rate:.3g} spend only "
                f"ε={epsilon_wanted:g} at δ={delta:g}",
                remedy="raise target_epsilon or delta, or train fewer steps",
            )
    low = high / 2
    while low > _LEAST_NOISE and enough(low):
        low, high = low / 2, low
    while high / low > _TIGHT:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


_MOST_NOISE, _LEAST_NOISE, _TIGHT = 1e5, 1e-2, 1.001


def _classes(events: Sequence[Mapping[str, Any]]) -> tuple[float, dict[_Kind, int]]:
    """Return z⁻² of all plain Gaussian mechanisms together, and the number of steps of each subsampled kind."""
    composed, subsampled = 0.0, dict[_Kind, int]()
    for event in events:
        kind, steps = _read(event)
        if kind.sampling_rate < 1:
            subsampled[kind] = subsampled.get(kind, 0) + steps
        else:
            composed += steps / kind.noise_multiplier**2
    return composed, subsampled


def _read(event: Mapping[str, Any]) -> tuple[_Kind, int]:
    fields = _FIELDS.get(str(event.get("mechanism")))
    multiplier, rate, steps = event.get("noise_multiplier"), event.get("sampling_rate", 1), event.get("steps", 1)
    if (
        fields == set(event)
        and isinstance(multiplier, int | float)
        and isinstance(rate, int | float)
        and isinstance(steps, int)
        and 0 < multiplier < math.inf
        and 0 < rate <= 1
        and steps > 0
    ):
        return _Kind(float(multiplier), float(rate)), steps
    raise PrivacyRefused(
        f"the privacy ledger holds an event that cannot be accounted for: {dict(event)}",
        remedy="use the mechanism that charged it, or name another data set in LOCEX_DATASET if it is another",
    )


def _analytic(composed: float, delta: float) -> float:
    from dp_accounting import get_epsilon_gaussian

    with np.errstate(divide="ignore"):  # so much noise that δ(ε) rounds to 0
        return float(get_epsilon_gaussian(1 / math.sqrt(composed), delta))


def _by_losses(kinds: _Counted, composed: float, delta: float) -> float | None:
    """Return ε by privacy loss distributions, or None where they come to no value."""
    bucket = _bucket(kinds, composed)
    if composed:
        kinds = (*kinds, (_Kind(1 / math.sqrt(composed), 1.0), 1))
    try:
        with np.errstate(all="ignore"):
            found = float(_COMPOSITIONS.of(kinds, bucket).get_epsilon_for_delta(delta))
    except (ArithmeticError, ValueError, MemoryError) as error:
        log.warning("privacy loss distributions come to no value (%s); Rényi divergences are taken", error)
        return None
    return found if math.isfinite(found) else None


def _bucket(kinds: _Counted, composed: float) -> float:
    """Return a bucket that is small beside the losses of a step, about q/z, yet not too small to be composed fast."""
    least = min([kind.noise_multiplier for kind, _ in kinds] + ([1 / math.sqrt(composed)] if composed else []))
    if least < _GROWING:
        return _COARSE * (_GROWING / least) ** 2
    loss = min(kind.sampling_rate / kind.noise_multiplier for kind, _ in kinds)
    return max(min(_COARSE, loss / 5), _FINE / max(1.0, least))


class _Compositions:
    """Distributions of events together. Those of the first kinds of a ledger are remembered from round to round."""

    def __init__(self) -> None:
        self._known: dict[tuple[_Counted, float], Any] = {}

    def of(self, kinds: _Counted, bucket: float) -> Any:
        """Return the distribution of all kinds together."""
        begin = next((end for end in range(len(kinds), 0, -1) if (kinds[:end], bucket) in self._known), 0)
        total = self._known.get((kinds[:begin], bucket))
        for end in range(begin + 1, len(kinds) + 1):
            part = _distribution(*kinds[end - 1], bucket)
            total = part if total is None else total.compose(part)
            self._known[kinds[:end], bucket] = total
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        return total


_REMEMBERED = 64
_COMPOSITIONS = _Compositions()


def _distribution(kind: _Kind, steps: int, bucket: float) -> Any:
    one = _of_a_step(kind, bucket)
    return one.self_compose(steps) if steps > 1 else one


@lru_cache(maxsize=16)
def _of_a_step(kind: _Kind, bucket: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        kind.noise_multiplier, value_discretization_interval=bucket, sampling_prob=kind.sampling_rate
    )


def _by_divergences(kinds: _Counted, composed: float, delta: float) -> float:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    for kind, steps in kinds:
        accountant.compose(PoissonSampledDpEvent(kind.sampling_rate, GaussianDpEvent(kind.noise_multiplier)), steps)
    if composed:
        accountant.compose(GaussianDpEvent(1 / math.sqrt(composed)))
    found = float(accountant.get_epsilon(delta))
    if not math.isfinite(found):
        raise PrivacyRefused(
            f"the ε that the ledger's events spend at δ={delta:g} cannot be bounded",
            remedy="raise noise_multiplier or delta",
        )
    return found
