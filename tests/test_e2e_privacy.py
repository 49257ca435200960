"""Differential privacy from the nodes' jobs to the collector's aggregation."""

from __future__ import annotations

import pytest

from locex_privacy.accountant import epsilon, gaussian_event

NOISE = 0.8
MECHANISM = {"dp-fixed": {"clip_norm": 1.0, "noise_multiplier": NOISE}}


def spent(rounds):
    return epsilon([gaussian_event(NOISE)] * rounds, 1e-5)


def private(house, rounds, *nodes, **fields):
    house.collect(rounds, nodes=len(nodes), **{"privacy-mechanisms": MECHANISM})
    for node in nodes:
        node.post(house.id, house.job(**{"privacy-mechanisms": {"dp-fixed": MECHANISM["dp-fixed"] | fields}}))


def test_the_ledger_of_a_data_set_outlives_jobs_and_bounds_them(house):
    private(house, 2, *house.nodes)
    for node in house.nodes:
        history = node.finished(house.id)["history"]
        assert [one["epsilon"]["client"] for one in history] == pytest.approx([spent(1), spent(2)])
        assert all({"loss", "accuracy"} <= one["evaluation"].keys() for one in history)
    seen = house.collector.finished(house.id)
    assert [len(one["participants"]) for one in seen["history"]] == [2, 2]
    assert [(one["train"], one["evaluation"], one["examples"]) for one in seen["history"]] == [({}, {}, 2)] * 2

    first = house.nodes[0]
    private(house, 1, first)
    assert first.finished(house.id)["history"][0]["epsilon"]["client"] == pytest.approx(spent(3))

    private(house, 1, first, max_epsilon=spent(3))
    record = first.over(house.id)
    assert (record["state"], record["failure"]["code"]) == ("FAILED", "privacy-refused")
    assert "past max_epsilon" in record["failure"]["message"]
    assert record["round"] == 0
    assert not record["history"]
