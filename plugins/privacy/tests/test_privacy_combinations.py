"""Which mechanisms go together, asked as a worker asks: every mechanism looks at its job."""

from importlib.metadata import entry_points

import pytest

from locex.api import PrivacyReview
from locex.errors import PrivacyRefused
from locex.schemas.base import validate
from locex.schemas.plugin import PluginConfig

FIELDS = {
    "dp-fixed": {"clip_norm": 1, "noise_multiplier": 1},
    "dp-adaptive": {"num_sampled_clients": 40},
    "compression": {},
}
ON_SERVER = {"server_side_noising": True}


class Foreign(PluginConfig):
    """The configuration of a mechanism of another package."""


def reviewed(**mechanisms):
    """Let every mechanism of this package review a job; return the warnings."""
    names = {key.replace("_", "-"): fields for key, fields in mechanisms.items()}
    plugins = {
        name: next(iter(entry_points(group="locex.privacy", name=name))).load()() for name in names & FIELDS.keys()
    }
    configs = {
        name: validate(plugins[name].locex_config_model(), FIELDS[name] | fields) if name in plugins else Foreign()
        for name, fields in names.items()
    }
    review = PrivacyReview(configs, "flower-grpc", "torch")
    hooks = {name: plugin.locex_review_privacy for name, plugin in plugins.items()}
    return [
        text
        for name, hook in hooks.items()
        for text in (hook(review) if name == "compression" else hook(configs[name], review))
    ]


@pytest.mark.parametrize(
    ("mechanisms", "reason", "remedy"),
    [
        ({"dp_fixed": {}, "dp_adaptive": {}}, "both clip and noise the same update", "choose one"),
        ({"dp_adaptive": {}, "homomorphic": {}}, "averages in clear", "use dp-fixed with client-side noise"),
        ({"dp_adaptive": {}, "secagg": {}}, "averages in clear", "use dp-fixed with client-side noise"),
        ({"dp_fixed": ON_SERVER, "homomorphic": {}}, "behind homomorphic it cannot", "server_side_noising to false"),
        ({"dp_fixed": ON_SERVER, "secagg": {}}, "behind secagg it cannot", "server_side_noising to false"),
        ({"compression": {}, "homomorphic": {}}, "cannot be added", "leave compression out"),
        ({"compression": {}, "secagg": {}}, "cannot be added", "leave compression out"),
    ],
)
def test_senseless_combinations_are_refused_with_the_reason(mechanisms, reason, remedy):
    for order in (mechanisms, dict(reversed(mechanisms.items()))):
        with pytest.raises(PrivacyRefused, match=reason) as caught:
            reviewed(**order)
        assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    "mechanisms",
    [
        {"dp_fixed": {}, "homomorphic": {}},
        {"dp_fixed": {}, "secagg": {}},
        {"dp_fixed": {}, "compression": {}},
        {"dp_adaptive": {}, "compression": {}},
        {"dp_fixed": ON_SERVER, "compression": {}},
        {"dp_fixed": {}, "dp_sgd": {}},
    ],
)
def test_what_makes_sense_is_taken(mechanisms):
    warnings = reviewed(**mechanisms)

    assert ("compression" in mechanisms) == any("stock Flower server" in text for text in warnings)
    on_server = mechanisms.get("dp_fixed") == ON_SERVER or "dp_adaptive" in mechanisms
    assert on_server == any("server is honest" in text for text in warnings)
