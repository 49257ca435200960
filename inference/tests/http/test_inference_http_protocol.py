"""What the protocol's paths answer, beside infer."""

from __future__ import annotations

import json

import pytest


async def got(server, path, method="GET", **options):
    reply = await server.ask(method, path, **options)
    return reply.status, json.loads(reply.body)


async def test_health_has_a_body(server):
    assert await got(server, "v2/health/live") == (200, {"live": True})
    assert await got(server, "v2/health/ready") == (200, {"ready": True})


async def test_a_server_that_loads_is_alive_and_not_ready(server):
    server.service._begun = False
    assert await got(server, "v2/health/live") == (200, {"live": True})
    assert await got(server, "v2/health/ready") == (503, {"ready": False})


async def test_the_server_tells_name_version_and_extensions(server):
    status, content = await got(server, "v2")
    assert status == 200
    assert content["name"] == "locex-inference"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(content["extensions"])
    assert (await got(server, "v2/"))[1] == content


async def test_metadata(server):
    server.add("double", server.inferencers["double"], "2")
    expected = {
        "name": "double",
        "versions": ["1", "2"],
        "platform": "numpy_function",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "total", "datatype": "FP32", "shape": [-1, 1]},
        ],
    }
    assert await got(server, "v2/models/double") == (200, expected)
    assert await got(server, "v2/models/double/versions/1") == (200, expected | {"versions": ["1"]})


async def test_readiness_of_a_model(server):
    assert await got(server, "v2/models/double/ready") == (200, {"name": "double", "ready": True})
    assert await got(server, "v2/models/double/versions/1/ready") == (200, {"name": "double", "ready": True})
    server.registry.note("failed", "1", "UNAVAILABLE", "it is corrupt")
    status, content = await got(server, "v2/models/failed/ready")
    assert status == 503
    assert "failed" in content["error"]


@pytest.mark.parametrize(
    "path",
    [
        "v2/models/none",
        "v2/models/none/ready",
        "v2/models/none/config",
        "v2/models/none/stats",
        "v2/models/double/versions/9",
        "v2/models/double/versions/9/ready",
        "v2/models/double/versions/9/stats",
        "v2/models/none/trace/setting",
        "v2/nowhere",
    ],
)
async def test_what_is_not_there_is_404_with_an_error(server, path):
    status, content = await got(server, path)
    assert status == 404
    assert isinstance(content["error"], str)


async def test_a_wrong_method_is_405_with_an_error(server):
    status, content = await got(server, "v2/models/double/infer")
    assert status == 405
    assert "error" in content


async def test_configuration_in_the_words_of_tritons_clients(server):
    server.add("bounded", server.inferencers["double"], options={"max_batch_size": 8})
    status, content = await got(server, "v2/models/bounded/config")
    assert status == 200
    assert content["max_batch_size"] == 8
    assert content["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}]
    _, free = await got(server, "v2/models/upper/config")
    assert free["input"] == [{"name": "text", "data_type": "TYPE_STRING", "dims": [-1, 1]}]


async def test_statistics_count_what_was_done(server):
    content = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}]}
    for _ in range(3):
        assert (await server.infer("double", content)).status == 200
    status, told = await got(server, "v2/models/double/stats")
    assert status == 200
    (model,) = told["model_stats"]
    assert (model["name"], model["version"]) == ("double", "1")
    assert (model["inference_count"], model["execution_count"]) == (6, 3)
    assert model["inference_stats"]["success"]["count"] == 3
    assert model["inference_stats"]["compute_infer"]["ns"] > 0
    assert model["batch_stats"][0]["batch_size"] == 2
    _, every = await got(server, "v2/models/stats")
    assert {each["name"] for each in every["model_stats"]} == {"double", "upper", "echo"}


async def test_the_index_tells_states_and_reasons(server):
    server.registry.note("failed", "3", "UNAVAILABLE", "it is corrupt")
    status, entries = await got(server, "v2/repository/index", "POST")
    assert status == 200
    assert {"name": "failed", "version": "3", "state": "UNAVAILABLE", "reason": "it is corrupt"} in entries
    _, ready = await got(server, "v2/repository/index", "POST", data=b'{"ready": true}')
    assert [entry["name"] for entry in ready] == ["double", "upper", "echo"]
    status, content = await got(server, "v2/repository/index", "POST", data=b'{"ready": 1}')
    assert (status, "error" in content) == (400, True)


async def test_trace_settings_are_read_and_changed(server):
    status, settings = await got(server, "v2/trace/setting")
    assert status == 200
    assert settings["trace_level"] == ["OFF"]
    change = {"trace_level": ["TIMESTAMPS"], "trace_rate": "5"}
    status, changed = await got(server, "v2/models/double/trace/setting", "POST", json=change)
    assert status == 200
    assert (changed["trace_level"], changed["trace_rate"]) == (["TIMESTAMPS"], "5")
    assert (await got(server, "v2/trace/setting"))[1] == settings
    back = {"trace_level": None, "trace_rate": None}
    assert await got(server, "v2/models/double/trace/setting", "POST", json=back) == (200, settings)
    status, refused = await got(server, "v2/trace/setting", "POST", json={"colour": "red"})
    assert status == 400
    assert "colour" in refused["error"]


async def test_log_settings_are_read_and_changed(server):
    _, before = await got(server, "v2/logging")
    assert before["log_info"] is True
    assert await got(server, "v2/logging", "POST", json={"log_info": False}) == (200, before | {"log_info": False})
    assert await got(server, "v2/logging", "POST", json={"log_info": True}) == (200, before)
    assert (await got(server, "v2/logging", "POST", json={"log_info": "no"}))[0] == 400


async def test_cuda_shared_memory_is_refused_cleanly(server):
    assert await got(server, "v2/cudasharedmemory/status") == (200, [])
    handle = {"raw_handle": {"b64": ""}, "device_id": 0, "byte_size": 8}
    status, content = await got(server, "v2/cudasharedmemory/region/r/register", "POST", json=handle)
    assert status == 403
    assert "CUDA" in content["error"]
    assert (await got(server, "v2/cudasharedmemory/unregister", "POST"))[0] == 200


async def test_problems_and_documentation_of_the_service_stay_those_of_the_toolkit(server):
    reply = await server.ask("GET", "nowhere")
    assert reply.headers["Content-Type"].startswith("application/problem+json")
    status, document = await got(server, "openapi.json")
    assert status == 200
    assert "/v2/models/{model}/infer" in document["paths"]
    assert (await got(server, "healthz"))[0] == 200
