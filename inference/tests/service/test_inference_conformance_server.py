"""Metadata, configuration, statistics, the repository and settings, as tritonclient's four clients ask for them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

VERSIONS = ["1", "2"]
A = np.arange(6, dtype=np.float32).reshape(2, 3)


def inputs(client, a=A, b=A):
    return [client.input("a", a, "FP32"), client.input("b", b, "FP32")]


def listed(answer, key):
    """Return a list of an answer: JSON has it bare, gRPC in a message that leaves out what is empty."""
    return answer if isinstance(answer, list) else answer.get(key, [])


async def refused(client, status, name, *arguments, **named):
    """Return the text of an error of this status: HTTP's number, or gRPC's name."""
    with pytest.raises(InferenceServerException) as caught:
        await client.ask(name, *arguments, **named)
    expected = str(status[0]) if client.over_http else f"StatusCode.{status[1]}"
    assert caught.value.status() == expected, caught.value
    assert caught.value.message()
    return caught.value.message()


NOT_FOUND, INVALID = (404, "NOT_FOUND"), (400, "INVALID_ARGUMENT")


async def test_the_server_is_live_and_ready(client):
    assert await client.ask("is_server_live") is True
    assert await client.ask("is_server_ready") is True


async def test_the_servers_metadata_name_it_and_its_extensions(client):
    told = await client.ask("get_server_metadata")
    assert told["name"] == "locex-inference"
    assert told["version"]
    assert {"binary_tensor_data", "model_repository", "statistics", "system_shared_memory"} <= {*told["extensions"]}


@pytest.mark.parametrize("version", ["", "1", "2"])
async def test_a_model_is_ready(client, version):
    assert await client.ask("is_model_ready", "two", version) is True


@pytest.mark.parametrize(("model", "version"), [("none", ""), ("two", "7")])
async def test_a_model_or_version_that_is_not_there_is_not_ready(client, model, version):
    assert await client.ask("is_model_ready", model, version) is False


async def test_a_models_metadata_tell_its_tensors(client):
    told = await client.ask("get_model_metadata", "two")
    assert (told["name"], told["platform"]) == ("two", "onnxruntime_onnx")
    assert sorted(told["versions"]) == VERSIONS
    assert [(one["name"], one["datatype"], [*map(int, one["shape"])]) for one in told["inputs"]] == [
        ("a", "FP32", [-1, 3]),
        ("b", "FP32", [-1, 3]),
    ]
    assert [one["name"] for one in told["outputs"]] == ["sum", "difference"]


async def test_metadata_of_one_version(client):
    assert (await client.ask("get_model_metadata", "two", "1"))["versions"] == ["1"]


async def test_a_models_configuration(client):
    told = await client.ask("get_model_config", "bounded")
    config = told.get("config", told)
    assert (config["name"], config["max_batch_size"]) == ("bounded", 4)
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert [*map(int, config["input"][0]["dims"])] == [3]


@pytest.mark.parametrize("name", ["get_model_metadata", "get_model_config", "get_inference_statistics"])
@pytest.mark.parametrize(("model", "version"), [("none", ""), ("two", "7")])
async def test_what_is_not_there_is_not_found(client, name, model, version):
    assert model in await refused(client, NOT_FOUND, name, model, version)


async def test_statistics_count(client):
    async def count():
        told = await client.ask("get_inference_statistics", "two", "1")
        (one,) = told["model_stats"]
        assert (one["name"], one["version"]) == ("two", "1")
        success = one.get("inference_stats", {}).get("success", {})
        return int(one.get("inference_count", 0)), int(success.get("count", 0)), int(success.get("ns", 0))

    before = await count()
    await client.infer("two", inputs(client), model_version="1")
    after = await count()
    assert (after[0] - before[0], after[1] - before[1]) == (2, 1)  # two examples, one request
    assert after[2] > before[2]


async def test_statistics_of_all_models(client):
    told = await client.ask("get_inference_statistics")
    assert {("two", "1"), ("two", "2"), ("bounded", "1")} <= {
        (one["name"], one["version"]) for one in told["model_stats"]
    }


async def test_the_index_lists_every_version(client):
    entries = listed(await client.ask("get_model_repository_index"), "models")
    assert {("two", "1", "READY"), ("two", "2", "READY")} <= {(e["name"], e["version"], e["state"]) for e in entries}


async def test_a_model_is_unloaded_and_loaded_again(client):
    await client.ask("unload_model", "removable")
    assert await client.ask("is_model_ready", "removable") is False
    await client.ask("load_model", "removable")
    assert await client.ask("is_model_ready", "removable") is True


async def test_a_model_is_loaded_with_configuration_and_files(client, service):
    content = (service.folder / "models" / "two" / "2" / "model.onnx").read_bytes()
    name = f"sent-{client.kind}"
    config = json.dumps({"backend": "onnxruntime", "max_batch_size": 8})
    await client.ask("load_model", name, config=config, files={"file:1/model.onnx": content})
    told = await client.ask("get_model_config", name)
    assert told.get("config", told)["max_batch_size"] == 8
    answer = await client.infer(name, inputs(client))
    np.testing.assert_array_equal(answer.as_numpy("sum"), 20 * A)
    await client.ask("unload_model", name)


async def test_a_model_that_cannot_be_loaded_is_refused_and_the_index_says_why(client):
    name = f"broken-{client.kind}"
    with pytest.raises(InferenceServerException) as caught:
        await client.ask("load_model", name, config="{}", files={"file:1/model.onnx": b"no model"})
    assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT", "422"}, caught.value
    entries = listed(await client.ask("get_model_repository_index"), "models")
    assert any(e["name"] == name and e["state"] == "UNAVAILABLE" and e["reason"] for e in entries)


async def test_an_unknown_model_cannot_be_loaded_or_unloaded(client):
    for name in ("load_model", "unload_model"):
        with pytest.raises(InferenceServerException) as caught:
            await client.ask(name, "nowhere")
        assert caught.value.status() in {"400", "404", "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND"}


async def test_trace_settings_are_read_set_and_cleared(client):
    def setting(told, name):
        value = told.get("settings", told)[name]
        return value["value"] if isinstance(value, dict) else [value] if isinstance(value, str) else value

    before = await client.ask("get_trace_settings")
    assert setting(before, "trace_rate")
    told = await client.ask("update_trace_settings", settings={"trace_rate": "7", "trace_level": ["TIMESTAMPS"]})
    assert (setting(told, "trace_rate"), setting(told, "trace_level")) == (["7"], ["TIMESTAMPS"])
    told = await client.ask("update_trace_settings", model_name="two", settings={"trace_rate": "9"})
    assert setting(told, "trace_rate") == ["9"]
    told = await client.ask("update_trace_settings", model_name="two", settings={"trace_rate": None})
    assert setting(told, "trace_rate") == ["7"]
    told = await client.ask("update_trace_settings", settings={"trace_rate": None, "trace_level": None})
    assert setting(told, "trace_rate") == setting(before, "trace_rate")


async def test_log_settings_are_read_and_set(client):
    def setting(told, name):
        value = told.get("settings", told)[name]
        return next(iter(value.values())) if isinstance(value, dict) and value else value

    assert setting(await client.ask("get_log_settings"), "log_info") in {True, False}
    told = await client.ask("update_log_settings", {"log_verbose_level": 1})
    assert setting(told, "log_verbose_level") == 1
    await client.ask("update_log_settings", {"log_verbose_level": 0})


async def test_a_setting_that_is_none_is_refused(client):
    await refused(client, INVALID, "update_log_settings", {"log_colour": True})
