"""``secagg`` at a stock SuperLink, whose server app runs Flower's own SecAgg+ workflow."""

from __future__ import annotations

import json

import numpy as np
import pytest

from locex_flower.secagg import SecAggConfig, SecureAggregation
from locex_flower.superlink import FlowerSuperlink

pytestmark = [
    pytest.mark.filterwarnings("ignore:.click.utils:DeprecationWarning"),  # typer's, at the import of flwr
    pytest.mark.timeout(300),
    pytest.mark.slow,
]

EXAMPLES = {1: 50, 2: 20, 4: 30}  # by the step that a node adds


def masking(kit, step, examples, mechanism):
    """Return a participant whose updates pass a mechanism."""

    class Masking(kit.FakeParticipant):
        def fit(self, parameters, config):
            return mechanism.outgoing(super().fit(parameters, config), config)

    node = Masking(step=step, examples=examples)
    node.weights["layer.count"] = node.weights["layer.count"].reshape(1)
    return node


def test_flowers_own_workflow_sums_our_nodes(kit, superlink, submit, join):
    _, port = superlink()
    runs = []
    for step, examples in EXAMPLES.items():
        config = SecAggConfig(num_shares=3, reconstruction_threshold=2, max_weight=100.0, flower_masks=True)
        mechanism = SecureAggregation(config)
        node = masking(kit, step, examples, mechanism)
        runs.append(
            join(FlowerSuperlink(), node, f"127.0.0.1:{port}", linger=0.5, patience=200, mechanisms=[mechanism])
        )
    out = submit(port, rounds=2, nodes=3, program="secagg_server.py")
    for run in runs:
        assert run.result(200) is None
    told = json.loads(out.read_text())
    average = sum(step * examples for step, examples in EXAMPLES.items()) / 100
    np.testing.assert_allclose(told["arrays"][0], np.full((2, 3), 2 * average), atol=1e-4)
    # Integers come back as floats, and nodes round them: 2.1 becomes 2, to which they add 2.1.
    np.testing.assert_allclose(told["arrays"][1], [2 * average], atol=0.2)
    assert len(told["losses"]) == 2
