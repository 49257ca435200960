"""The site's policy: jobs that break a rule are refused with its name, before anything of them is kept."""

from __future__ import annotations

import json

import pytest

from locex.errors import PolicyRefused
from locex.schemas.policy import Requirement


@pytest.fixture
def policy(tmp_path):
    """Write the site's policy; return the setting that names it."""
    path = tmp_path / "policy.json"

    def write(content):
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def rounded(**fields):
    return {"privacy-mechanisms": {"round_off": fields}}


REQUIRED = {"name": "rounding", "require": [{"mechanism": "round_off", "at_most": {"decimals": 3}}]}


@pytest.mark.parametrize(
    ("rules", "changes", "parts"),
    [
        ({"rules": [REQUIRED]}, {}, ["'rounding'", "round_off is missing"]),
        ({"rules": [REQUIRED]}, rounded(decimals=4), ["'rounding'", "round_off.decimals is 4, at most 3 is asked"]),
        (
            {"rules": [{"name": "r", "require": [{"mechanism": "round_off", "at_least": {"budget": 2000}}]}]},
            rounded(),
            ["round_off.budget is 1000, at least 2000 is asked"],
        ),
        (
            {"rules": [{"name": "r", "require": [{"mechanism": "round_off", "at_most": {"epsilon": 8}}]}]},
            rounded(),
            ["round_off.epsilon is absent"],
        ),
        (
            {"rules": [{"name": "r", "require": [{"mechanism": "shield"}, {"mechanism": "veil"}]}]},
            {},
            ["shield is missing and veil is missing"],
        ),
        ({"rules": [{"name": "none", "forbid": "round_off"}]}, rounded(), ["'none'", "round_off must not be used"]),
        ({"closed": True}, rounded(), ["'closed'", "no rule lets a job train on the data set 'default'"]),
        (
            {"closed": True, "rules": [{"name": "r", "require": [{"mechanism": "shield"}]}]},
            rounded(),
            ["'r'", "shield is missing"],
        ),
        (
            {"closed": True, "rules": [REQUIRED | {"datasets": ["other"]}]},
            rounded(),
            ["'closed'", "no rule lets a job train"],
        ),
        ("{", {}, ["'unreadable-policy'"]),
        ({"rules": [{"name": "r", "requires": []}]}, {}, ["'unreadable-policy'", "requires"]),
    ],
)
async def test_a_job_that_breaks_a_rule_is_refused_with_its_name(open_node, policy, rules, changes, parts):
    async with open_node(policy_file=policy(rules)) as node:
        with pytest.raises(PolicyRefused) as caught:
            await node.submit(**changes)
        assert (await node.jobs.page()).total == 0
    for part in parts:
        assert part in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("rules", "changes"),
    [
        ({"rules": [REQUIRED]}, rounded(decimals="3")),
        ({"rules": [{"name": "r", "require": [{"mechanism": "shield"}, {"mechanism": "round_off"}]}]}, rounded()),
        ({"rules": [REQUIRED | {"datasets": ["other"]}]}, {}),
        ({"closed": True, "rules": [REQUIRED]}, rounded()),
        ({"rules": [{"name": "enough", "min_examples": 400}]}, {}),
    ],
)
async def test_a_job_that_keeps_the_rules_is_taken(open_node, policy, rules, changes):
    async with open_node(policy_file=policy(rules)) as node:
        await node.submit(**changes)
        assert (await node.end()).state == "FINISHED"


@pytest.mark.parametrize(("given", "short"), [(False, ""), (True, "server_side_noising is True, at most 0 is asked")])
def test_a_switch_can_be_demanded_off(given, short):
    demanded = Requirement(mechanism="dp-fixed", at_most={"max_epsilon": 8, "server_side_noising": 0})

    shortfall = demanded.shortfall({"max_epsilon": 2, "server_side_noising": given})

    assert shortfall == (f"dp-fixed.{short}" if short else "")


async def test_a_missing_policy_lets_no_job_in(open_node, tmp_path):
    async with open_node(policy_file=tmp_path / "absent.json") as node:
        with pytest.raises(PolicyRefused, match="unreadable-policy"):
            await node.submit()


async def test_a_rule_is_followed_from_the_next_job_on(open_node, policy):
    async with open_node(policy_file=policy({})) as node:
        await node.submit()
        await node.end()
        policy({"rules": [REQUIRED]})
        with pytest.raises(PolicyRefused, match="rounding"):
            await node.submit()


async def test_a_job_that_waited_is_held_against_the_rules_of_then(open_node, policy):
    async with open_node(policy_file=policy({}), max_jobs=1) as node:
        await node.submit("first", server_address="endless:1")
        await node.submit("second")
        policy({"rules": [REQUIRED]})
        await node.jobs.stop("first")
        record = await node.end("second")
    assert (record.state, record.failure.code) == ("FAILED", "policy-refused")


async def test_too_few_examples_end_a_job_when_they_are_loaded(open_node, policy):
    async with open_node(policy_file=policy({"rules": [{"name": "enough", "min_examples": 401}]})) as node:
        await node.submit()
        record = await node.end()
    assert (record.state, record.failure.code) == ("FAILED", "policy-refused")
    assert "'enough': the node has fewer than 401 training examples" in record.failure.message
