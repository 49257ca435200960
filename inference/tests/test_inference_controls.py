import logging

import pytest

from locex_inference.controls import Controls
from locex_inference.errors import InvalidInference


@pytest.fixture
def controls():
    return Controls(logging.getLogger("locex_inference.test"))


def test_a_models_trace_settings_hide_the_general_ones_until_they_are_cleared(controls):
    assert controls.trace_rate("m") == 0
    controls.set_trace({"trace_level": ["TIMESTAMPS"], "trace_rate": ["4"]})
    controls.set_trace({"trace_rate": ["2"]}, "m")
    assert (controls.trace_rate("m"), controls.trace_rate("n")) == (0.5, 0.25)
    assert controls.set_trace({"trace_rate": None}, "m")["trace_rate"] == ["4"]
    controls.set_trace({"trace_level": None})
    assert controls.trace()["trace_level"] == ["OFF"]


@pytest.mark.parametrize(
    "changes",
    [
        {"absent": ["1"]},
        {"absent": None},
        {"trace_file": ["/tmp/x"]},
        {"trace_rate": ["0"]},
        {"trace_rate": ["1", "2"]},
        {"trace_rate": ["x"]},
        {"trace_level": ["LOUD"]},
        {"trace_count": ["-2"]},
    ],
)
def test_trace_settings_that_cannot_be_change_nothing(controls, changes):
    before = controls.trace()
    with pytest.raises(InvalidInference):
        controls.set_trace({"log_frequency": ["7"]} | changes)
    assert controls.trace() == before


def test_log_settings_set_the_level(controls):
    logger = logging.getLogger("locex_inference.test")
    for changes, level in (
        ({"log_verbose_level": 1}, logging.DEBUG),
        ({"log_verbose_level": 0}, logging.INFO),
        ({"log_info": False}, logging.WARNING),
        ({"log_warning": False}, logging.ERROR),
        ({"log_error": False}, logging.CRITICAL),
    ):
        assert controls.set_log(changes).items() >= changes.items()
        assert logger.level == level
    for wrong in ({"log_file": "x"}, {"absent": 1}, {"log_info": 1}, {"log_verbose_level": -1}):
        with pytest.raises(InvalidInference):
            controls.set_log({"log_info": True} | wrong)
    assert not controls.log()["log_info"]
