"""Which mechanisms make no sense together, and why: every pairwise rule of this package stands here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from locex.api import PrivacyReview
from locex.errors import PrivacyRefused
from locex.schemas.plugin import PluginConfig


def _always(_: PluginConfig) -> bool:
    return True


def _noised_by_server(config: PluginConfig) -> bool:
    return bool(getattr(config, "server_side_noising", False))


@dataclass(frozen=True, slots=True)
class Rule:
    """``one`` goes not together with ``other``, where the configuration of ``one`` meets the condition."""

    one: str
    other: str
    reason: str
    remedy: str
    condition: Callable[[PluginConfig], bool] = _always


_UNREADABLE = "the server adds noise to updates that it can read, and clips them; behind {} it cannot"
_NODES_NOISE = "set server_side_noising to false: the nodes then add the noise"
_FOLLOWS = "its clipping norm follows what the collector averages in clear"
_FIXED = "use dp-fixed with client-side noise"
_SUMMED = "compressed updates cannot be added, which is all that {} lets the server do"
_WITHOUT = "leave compression out"

RULES = (
    Rule("dp-fixed", "dp-adaptive", "both clip and noise the same update", "choose one of them"),
    Rule("dp-adaptive", "homomorphic", _FOLLOWS, _FIXED),
    Rule("dp-adaptive", "secagg", _FOLLOWS, _FIXED),
    Rule("dp-fixed", "homomorphic", _UNREADABLE.format("homomorphic"), _NODES_NOISE, _noised_by_server),
    Rule("dp-fixed", "secagg", _UNREADABLE.format("secagg"), _NODES_NOISE, _noised_by_server),
    Rule("compression", "homomorphic", _SUMMED.format("homomorphic"), _WITHOUT),
    Rule("compression", "secagg", _SUMMED.format("secagg"), _WITHOUT),
    Rule(
        "homomorphic",
        "secagg",
        "both hide single updates from the server, and neither can act on what the other makes of them",
        "choose one of them",
    ),
)


def refuse_senseless(name: str, review: PrivacyReview) -> None:
    """Raise `PrivacyRefused` where a mechanism stands beside one that it does not go together with."""
    for rule in RULES:
        pair = {rule.one, rule.other}
        if name in pair and pair <= review.mechanisms.keys() and rule.condition(review.mechanisms[rule.one]):
            raise PrivacyRefused(f"{rule.one} and {rule.other} together: {rule.reason}", remedy=rule.remedy)
