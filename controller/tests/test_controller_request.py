"""A training's request: nothing that it asks for is dropped in silence."""

import pytest

from locex.errors import InvalidConfiguration
from locex_controller.request import parse_request

MECHANISM = {"privacy-mechanisms": {"shield": {"clip": 1}}}


@pytest.mark.parametrize(
    ("content", "paths"),
    [
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


def test_the_strategys_own_fields_and_the_mechanisms_are_kept_apart():
    request, warnings = parse_request(MECHANISM | {"strategy": "avg", "strategy_conf": {"eta": 3, "tau": None}}, "1")
    chosen, (mechanism,) = request.chosen_aggregation(), request.mechanisms()
    assert (chosen.name, chosen.config, chosen.config_pointer, chosen.stated) == (
        "fedavg",
        {"eta": 3},
        "/strategy_conf",
        True,
    )
    assert (mechanism.name, mechanism.config, mechanism.pointer) == (
        "shield",
        {"clip": 1},
        "/privacy-mechanisms/shield",
    )
    assert warnings == []


def test_mechanisms_may_have_fields_of_one_name():
    request, _ = parse_request({"privacy-mechanisms": {"a": {"clip": 1}, "b": {"clip": 2, "bits": None}}}, "1")
    assert [(one.name, one.config) for one in request.mechanisms()] == [("a", {"clip": 1}), ("b", {"clip": 2})]


def test_two_names_of_one_strategy_agree():
    request, warnings = parse_request(
        {"strategy": "avg", "aggregation": "fedavg", "privacy-mechanisms": {}, "privacy_mechanisms": None}, "1"
    )
    assert (request.chosen_aggregation().name, warnings) == ("fedavg", [])
