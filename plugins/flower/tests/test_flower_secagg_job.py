"""``secagg`` in jobs: what is refused or warned of before anything runs."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from locex.api import PrivacyReview
from locex.errors import PrivacyRefused
from locex.schemas.plugin import PluginConfig
from locex_flower.secagg import SecAgg, SecAggConfig


class Noising(PluginConfig):
    server_side_noising: bool = False


@pytest.mark.parametrize(
    ("federation", "others", "told"),
    [
        ("flower-grpc", {}, "flower-grpc has one"),
        ("flower-superlink", {"homomorphic": PluginConfig()}, "secagg cannot be used with homomorphic"),
        ("flower-superlink", {"compression": PluginConfig()}, "secagg cannot be used with compression"),
        ("flower-superlink", {"dp-adaptive": Noising()}, "secagg cannot be used with dp-adaptive"),
        ("flower-superlink", {"dp-fixed": Noising(server_side_noising=True)}, "dp-fixed's noise at the server"),
    ],
)
def test_senseless_combinations_are_refused_before_the_job_is_taken(federation, others, told):
    config = SecAggConfig()
    review = PrivacyReview({"secagg": config, **others}, federation, "pytorch")
    with pytest.raises(PrivacyRefused, match=told):
        SecAgg().locex_review_privacy(config, review)


def test_rounding_that_is_too_coarse_under_differential_privacy_is_told():
    for weight, warnings in ((1000.0, 1), (1.0, 0)):
        config = SecAggConfig(max_weight=weight)
        review = PrivacyReview({"secagg": config, "dp-fixed": Noising()}, "flower-superlink", "pytorch")
        assert len(SecAgg().locex_review_privacy(config, review)) == warnings


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        ({}, False),
        ({"reconstruction_threshold": 0.5}, True),
        ({"num_shares": 5, "reconstruction_threshold": 2}, True),
        ({"num_shares": 5, "reconstruction_threshold": 3}, False),
        ({"reconstruction_threshold": 1}, False),
    ],
)
def test_a_threshold_that_one_half_reaches_is_warned_of(fields, warned):
    config = SecAggConfig(**fields)
    warnings = SecAgg().locex_review_privacy(config, PrivacyReview({"secagg": config}, "flower-superlink", "pytorch"))
    assert [text for text in warnings if "reconstruction_threshold" in text] == warnings
    assert len(warnings) == warned


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"num_shares": 4}, "odd and at least 3"),
        ({"reconstruction_threshold": 1.5}, "at most 1"),
        ({"num_shares": 3, "reconstruction_threshold": 3}, "less than num_shares"),
        ({"modulus_range": 3 * 2**20}, "power of two"),
        ({"modulus_range": 2**22}, "sums wrap"),
        ({"colour": "blue"}, "Extra inputs"),
    ],
)
def test_parameters_that_cannot_work_are_named(fields, told):
    with pytest.raises(ValidationError, match=told):
        SecAggConfig.model_validate(fields)
