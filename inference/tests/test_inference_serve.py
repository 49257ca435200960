"""``locex inference serve`` as a process: both transports over one folder of models."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from onnx import TensorProto, helper, numpy_helper

LOCEX = Path(sys.executable).with_name("locex")
X = np.array([[1, 2], [3, 4], [5, 6]], np.float32)


def scaling(factor):
    """Return an ONNX model that multiplies by a factor."""
    weights = numpy_helper.from_array(np.eye(2, dtype=np.float32) * factor, "w")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", tensors[:1], tensors[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


@pytest.fixture
def folder(tmp_path):
    """Return a folder with one model of two versions, of which the second is the stable one."""
    for version in (1, 2):
        place = tmp_path / "models" / "scale" / str(version)
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(scaling(10**version))
    return tmp_path


@asynccontextmanager
async def serving(folder, *arguments, **environment):
    """Start the command; yield the process and its ports when it is ready."""
    argv = ["inference", "serve", "--port", "0", "--grpc-port", "0", "--models-folder", str(folder / "models")]
    process = await asyncio.create_subprocess_exec(
        LOCEX,
        *argv,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"LOCEX_STATE_FOLDER": str(folder / "state")} | environment,
    )
    try:
        ports = {}
        while "http" not in ports:
            line = (await process.stdout.readline()).decode()
            assert line, "the service ended before it listened"
            ports["http" if line.startswith("listening") else "grpc"] = int(re.search(r":(\d+)$", line)[1])
        yield process, ports
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


async def ready(url):
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{url}/v2/health/ready") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.05)


async def scaled(client, module):
    tensor = module.InferInput("x", list(X.shape), "FP32")
    tensor.set_data_from_numpy(X)
    result = await client.infer("scale", [tensor])
    return result.as_numpy("y")


async def test_both_transports_serve_the_folder_and_load_what_they_are_sent(folder):
    async with serving(folder) as (process, ports):
        await ready(f"http://127.0.0.1:{ports['http']}")
        http = triton_http.InferenceServerClient(f"127.0.0.1:{ports['http']}")
        grpc = triton_grpc.InferenceServerClient(f"127.0.0.1:{ports['grpc']}")
        async with http, grpc:
            np.testing.assert_array_equal(await scaled(http, triton_http), 100 * X)
            np.testing.assert_array_equal(await scaled(grpc, triton_grpc), 100 * X)
            await http.load_model("scale", files={"file:3/model.onnx": scaling(5)}, config="{}")
            np.testing.assert_array_equal(await scaled(grpc, triton_grpc), 5 * X)
            assert (await http.get_model_metadata("scale"))["versions"][-1] == "3"
            await grpc.unload_model("scale")
            assert not await http.is_model_ready("scale")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_a_model_that_cannot_be_loaded_keeps_the_service_from_being_ready_and_says_why(folder):
    broken = folder / "models" / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"\x08\x09rubbish")
    async with serving(folder, "--no-grpc") as (_, ports):
        assert "grpc" not in ports
        async with aiohttp.ClientSession(f"http://127.0.0.1:{ports['http']}") as session:
            states = {}
            while states.get(("scale", "2"), "LOADING") == "LOADING" or states.get(("broken", "1")) != "UNAVAILABLE":
                async with session.post("/v2/repository/index") as response:
                    entries = await response.json()
                states = {(entry["name"], entry["version"]): entry["state"] for entry in entries}
                await asyncio.sleep(0.05)
            assert states["scale", "2"] == "READY"
            assert next(entry for entry in entries if entry["name"] == "broken")["reason"]
            async with session.get("/v2/health/ready") as response:
                assert (response.status, await response.json()) == (503, {"ready": False})
            content = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
            async with session.post("/v2/models/scale/infer", json=content) as response:
                assert (await response.json())["outputs"][0]["data"] == [100, 200]
            async with session.post("/v2/models/broken/infer", data=json.dumps(content)) as response:
                assert response.status == 503


async def test_it_is_closed_beyond_loopback_without_a_token(folder):
    process = await asyncio.create_subprocess_exec(
        LOCEX, "inference", "serve", "--host", "0.0.0.0", "--port", "0", stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"LOCEX_API_TOKEN_FILE" in errors


async def test_the_files_of_an_older_service_name_the_version_and_its_pipelines(folder):
    configuration = folder / "configuration"
    configuration.mkdir()
    model = {"model_name": "scale", "model_version": "1", "library": "onnx"}
    (configuration / "model.json").write_text(json.dumps(model))
    format_ = {"data_types": {"numerical": {"size": [2], "dtype": "float32"}}}
    (configuration / "format.json").write_text(json.dumps(format_))
    steps = [{"id": "basic_norm", "parameters": {"mean": 1, "std": 2}}]
    (configuration / "preprocessing_pipeline.json").write_text(json.dumps(steps))
    async with serving(folder, LOCEX_CONFIGURATION_FOLDER=str(configuration)) as (_, ports):
        await ready(f"http://127.0.0.1:{ports['http']}")
        async with triton_http.InferenceServerClient(f"127.0.0.1:{ports['http']}") as client:
            assert (await client.get_model_metadata("scale"))["versions"] == ["1"]
            np.testing.assert_allclose(await scaled(client, triton_http), 10 * (X - 1) / 2)
