"""A training's request: nothing that it asks for is dropped in silence."""

import pytest

from locex.errors import InvalidConfiguration
from locex_controller.request import parse_request

MECHANISM = {"privacy-mechanisms": {"shield": {"clip": 1}}}


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        (MECHANISM | {"strategy": "nonsense"}, ["/strategy"]),
        (MECHANISM | {"aggregation": "median"}, ["/aggregation"]),
        ({"strategy": "median", "aggregation": "trimmed"}, ["/strategy"]),
        (MECHANISM | {"strategy_conf": {"clip": 2}}, ["/strategy_conf/clip", "/privacy-mechanisms/shield/clip"]),
        (
            {"strategy_conf": {"eta": 3}, "aggregation_config": {"eta": 4}},
            ["/strategy_conf/eta", "/aggregation_config/eta"],
        ),
        (
            {"privacy-mechanisms": {}, "privacy_mechanisms": {"shield": {}}},
            ["/privacy-mechanisms", "/privacy_mechanisms"],
        ),
    ],
)
def test_choices_that_displace_each_other_are_refused(content, paths):
    with pytest.raises(InvalidConfiguration) as raised:
        parse_request(content, "1")
    assert [error["path"] for error in raised.value.errors] == paths


def test_the_strategys_own_fields_reach_the_mechanisms_aggregation():
    request, warnings = parse_request(MECHANISM | {"strategy": "avg", "strategy_conf": {"eta": 3, "tau": None}}, "1")
    chosen = request.chosen_aggregation()
    assert (chosen.name, chosen.shared, chosen.config) == ("shield", {"clip": 1}, {"eta": 3})
    assert chosen.config_pointer == "/strategy_conf"
    assert warnings == ["'strategy' was ignored: the aggregation of the privacy mechanism takes its place"]


def test_two_names_of_one_strategy_agree():
    request, warnings = parse_request(
        {"strategy": "avg", "aggregation": "fedavg", "privacy-mechanisms": {}, "privacy_mechanisms": None}, "1"
    )
    assert (request.chosen_aggregation().name, warnings) == ("fedavg", [])
