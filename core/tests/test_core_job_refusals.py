"""Jobs that are refused at their submission, and what the answer names."""

from __future__ import annotations

import pytest

from locex.errors import (
    BrokenPlugin,
    CrashedPlugin,
    DuplicatePlugin,
    IncompatiblePlugin,
    InvalidConfiguration,
    RefusedPlugin,
    RepositoryUnavailable,
    ServerRefused,
    UnknownModel,
    UnknownPlugin,
)
from locex.schemas.record import JobState


@pytest.mark.parametrize(
    ("changes", "error", "parts"),
    [
        ({"optimizer_config": {"optimizer": "adamant"}}, UnknownPlugin, ["optimizer", "'adamant'", "sgd"]),
        ({"optimizer_config": {"optimizer": "sgd", "rho": 1}}, InvalidConfiguration, ["/optimizer_config/rho"]),
        ({"optimizer_config": {"optimizer": "sgd", "learning_rate": "x"}}, InvalidConfiguration, ["/learning_rate"]),
        ({"num_rounds": 0}, InvalidConfiguration, ["/num_rounds"]),
        ({"num_rounds": "many"}, InvalidConfiguration, ["/num_rounds", "integer"]),
        ({"config": [{"batch_size": -1}]}, InvalidConfiguration, ["/config/0/batch_size"]),
        ({"config": [{"learning_rate": float("inf")}]}, InvalidConfiguration, ["/config/0/learning_rate", "finite"]),
        ({"config": [{"epoch": 1}]}, InvalidConfiguration, ["/config/0/epoch"]),
        ({"server_address": "a b"}, InvalidConfiguration, ["/server_address"]),
        ({"model_name": "../etc"}, InvalidConfiguration, ["/model_name"]),
        ({"training_id": "other"}, InvalidConfiguration, ["'t' in the path", "'other'"]),
        ({"model_version": "2"}, UnknownModel, ["'m'", "'2'"]),
        ({"server_address": "169.254.169.254:80"}, ServerRefused, ["link-local"]),
        ({"privacy-mechanisms": {"shield": {}}}, UnknownPlugin, ["privacy", "'shield'", "round_off"]),
        ({"federation": "pigeons"}, UnknownPlugin, ["federation", "'pigeons'", "loopback"]),
    ],
)
async def test_a_wrong_job_is_refused_with_field_reason_and_remedy(node, changes, error, parts):
    with pytest.raises(error) as caught:
        await node.submit(**changes)
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.remedy
    assert (await node.jobs.page()).total == 0


@pytest.mark.parametrize(
    ("step", "error", "parts"),
    [
        ("raising", BrokenPlugin, ["'raising'", "locex-fixture-raising 1.0.0", "this plugin never loads"]),
        ("too_old", IncompatiblePlugin, ["locex-fixture-too-old 0.3.0", "<1,>=0.1", "locex-core 1.0.0"]),
        ("doubled", DuplicatePlugin, ["locex-fixture-duplicate 2.0.0", "locex-fixture-duplicate-too 3.0.0"]),
        ("exiting", RefusedPlugin, ["locex-fixture-exiting", "LOCEX_DENIED_DISTRIBUTIONS"]),
        ("hookless", BrokenPlugin, ["locex_config_model", "@hookimpl"]),
        ("unknown_argument", BrokenPlugin, ["colour"]),
        ("no_model", BrokenPlugin, ["PluginConfig"]),
        ("system_exit", BrokenPlugin, ["SystemExit"]),
    ],
)
async def test_a_plugin_that_cannot_be_used_is_named(node, step, error, parts):
    with pytest.raises(error) as caught:
        await node.submit(transformations={"train": [{"id": step}], "test": [{"id": step}]})
    for part in parts:
        assert part in str(caught.value)


async def test_a_plugin_that_ends_the_process_costs_one_answer(open_node):
    async with open_node(denied_distributions=[]) as node:
        with pytest.raises(CrashedPlugin) as caught:
            await node.submit(transformations={"train": [{"id": "exiting"}]})
        assert "exit code 3" in str(caught.value)
        assert "the last words of a plugin" in str(caught.value)
        assert (await node.submit()).record.state is JobState.QUEUED


async def test_a_plugin_that_hangs_is_ended(open_node, children):
    async with open_node(denied_distributions=[], plugin_timeout=1.5) as node:
        with pytest.raises(CrashedPlugin, match=r"transform hanging.* did not end within 1\.5 s"):
            await node.submit(transformations={"train": [{"id": "hanging"}]})
    assert not children()


async def test_an_export_never_replaces_a_model(node):
    with pytest.raises(InvalidConfiguration, match="version '1' already") as caught:
        await node.submit(export={"model_version": "1"})
    assert caught.value.errors[0]["path"] == "/export/model_version"


async def test_a_field_given_by_two_names_is_refused(node):
    with pytest.raises(InvalidConfiguration, match="privacy-mechanisms and privacy_mechanisms are the same field"):
        await node.submit(privacy_mechanisms={"round_off": {}})
    with pytest.raises(InvalidConfiguration, match="num_rounds and number_of_rounds"):
        await node.submit(number_of_rounds=2)


async def test_a_repository_that_is_down_is_told_apart_from_an_unknown_model(open_node, unused_tcp_port):
    async with open_node(repository_address=f"127.0.0.1:{unused_tcp_port}") as node:
        with pytest.raises(RepositoryUnavailable, match=r"127\.0\.0\.1"):
            await node.submit(model_name="elsewhere")


async def test_servers_outside_the_allow_list_are_refused(open_node):
    async with open_node(allowed_servers=["loop"]) as node:
        with pytest.raises(ServerRefused, match="LOCEX_ALLOWED_SERVERS"):
            await node.submit(server_address="other:1")
        await node.submit()
