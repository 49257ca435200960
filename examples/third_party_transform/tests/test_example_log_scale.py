"""What the transformation does, and that it keeps the contract."""

import numpy as np
from acme_log_scale.plugin import LogScaleConfig, LogScaleStep

from locex.api import Dataset


def test_it_keeps_the_contract(locex_check):
    assert locex_check("transform", "log_scale", offset="0.5")


def test_logarithms_and_their_inverse():
    step = LogScaleStep(LogScaleConfig(offset=1))
    given = Dataset(np.array([[0.0, 99.0]]), np.array([1]))
    made = step.transform_data(given)
    assert np.allclose(made.x, [[0, np.log(100)]])
    assert np.allclose(step.inverse_data(made).x, given.x, atol=1e-4)
