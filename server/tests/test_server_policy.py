"""The site's policy over HTTP: 403 with the rule's name."""

from __future__ import annotations

import json


async def test_a_job_that_breaks_a_rule_is_answered_403_with_its_name(open_node, tmp_path):
    rules = [{"name": "rounding", "require": [{"mechanism": "round_off", "at_most": {"decimals": 3}}]}]
    (tmp_path / "policy.json").write_text(json.dumps({"rules": rules}))
    node = await open_node(policy_file=tmp_path / "policy.json")
    await node.put_model()

    problem = await node.submit("a", 403, **{"privacy-mechanisms": {"round_off": {"decimals": 5}}})

    assert problem["code"] == "policy-refused"
    assert "rule 'rounding': round_off.decimals is 5, at most 3 is asked" in problem["detail"]
    assert "privacy-mechanisms" in problem["remedy"]
    await node.submit("a", **{"privacy-mechanisms": {"round_off": {"decimals": 2}}})


async def test_too_few_examples_are_answered_403_without_telling_how_many_there_are(open_node, tmp_path):
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"rules": [{"name": "enough", "min_examples": 401}]}))
    node = await open_node(policy_file=policy)
    await node.put_model()

    problem = await node.submit("a", 403)

    assert problem["code"] == "policy-refused"
    assert "'enough': the node has fewer than 401 training examples" in problem["detail"]
    assert "400" not in json.dumps(problem)
    policy.write_text(json.dumps({"rules": [{"name": "enough", "min_examples": 400}]}))
    await node.submit("a")
