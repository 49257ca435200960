"""Versions swapped under load: no request fails, and every reply is what the version that it names answers."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json

import aiohttp
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc_aio
from onnx import TensorProto, helper, numpy_helper

CONNECTIONS = 6  # of each transport


def constant(value):
    """Return a model that answers its version's number, whatever it is asked."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    nodes = [helper.make_node("Mul", ["x", "zero"], ["nothing"]), helper.make_node("Add", ["nothing", "value"], ["y"])]
    weights = [
        numpy_helper.from_array(np.full(1, number, np.float32), name)
        for name, number in (("zero", 0), ("value", value))
    ]
    graph = helper.make_graph(nodes, "constant", [x], [y], weights)
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


class Load:
    """Requests without end, on both transports; what was wrong with their replies."""

    def __init__(self, service, model):
        self.service, self.model = service, model
        self.over, self.faults, self.versions, self.count = False, [], set(), 0

    def take(self, version, values):
        self.count += 1
        self.versions.add(version)
        if [*values] != [float(version)] * 4:
            self.faults.append(f"version {version} answered {values}")

    async def over_http(self, session):
        content = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
        while not self.over:
            async with session.post(f"{self.service.url}/v2/models/{self.model}/infer", json=content) as response:
                told = await response.json()
            if response.status == 200:
                self.take(told["model_version"], told["outputs"][0]["data"])
            else:
                self.faults.append(told)

    async def over_grpc(self, client):
        tensor = triton_grpc_aio.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
        while not self.over:
            try:
                answer = await client.infer(self.model, [tensor])
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is a failed request
                self.faults.append(str(error))
            else:
                self.take(answer.get_response().model_version, answer.as_numpy("y")[0])

    async def reached(self, version):
        """Wait until a version answered."""
        while version not in self.versions and not self.faults:  # noqa: ASYNC110 -- replies tell of it
            await asyncio.sleep(0.001)


async def load_version(session, service, model, version, batching):
    parameters = {
        "config": json.dumps({"warmup": [1, 4], "micro_batching": batching}),
        f"file:{version}/model.onnx": base64.b64encode(constant(version)).decode(),
    }
    url = f"{service.url}/v2/repository/models/{model}/load"
    async with session.post(url, json={"parameters": parameters}) as response:
        assert response.status == 200, await response.text()


async def swap(service, model, swaps, batching):
    async with (
        aiohttp.ClientSession() as session,
        triton_grpc_aio.InferenceServerClient(f"127.0.0.1:{service.grpc}") as client,
    ):
        await load_version(session, service, model, 1, batching)
        load = Load(service, model)
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(load.over_http(session))
                group.create_task(load.over_grpc(client))
            try:
                await load.reached("1")
                for version in range(2, swaps + 2):
                    await load_version(session, service, model, version, batching)
                    await load.reached(str(version))
            finally:
                load.over = True
        assert not load.faults, load.faults[:5]
        assert load.versions == {str(version) for version in range(1, swaps + 2)}
        assert load.count > swaps * CONNECTIONS


@pytest.mark.parametrize("batching", ["on", "off"])
async def test_a_few_swaps_under_load(service, batching):
    await swap(service, f"few-{batching}", 3, batching)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_hundred_swaps_under_load(service):
    await swap(service, "hundred", 100, "on")


async def test_labels_canaries_and_rollback_choose_who_answers(service):
    async with aiohttp.ClientSession(service.url) as session:

        async def ask(method, path, status=200, **content):
            async with session.request(method, f"/v2/models/chosen/{path}", **content) as response:
                told = await response.json()
                assert response.status == status, told
                return told

        async def answers(label=""):
            tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0] * 4}
            where = f"versions/{label}/infer" if label else "infer"
            told = await ask("POST", where, json={"inputs": [tensor]})
            assert told["outputs"][0]["data"] == [float(told["model_version"])] * 4
            return told["model_version"]

        for version in (1, 2):
            await load_version(session, service, "chosen", version, "auto")
        assert await answers() == "2"
        told = await ask("POST", "rollback")
        assert told["labels"] == {"latest": "2", "stable": "1"}
        assert [await answers(), await answers("latest")] == ["1", "2"]
        await ask("PUT", "labels", json={"labels": {"mine": "2"}})
        assert await answers("mine") == "2"
        told = await ask("PUT", "canary", json={"weights": {"2": 1.0}})
        assert told["canary"] == {"2": 1.0}
        assert await answers() == "2"
        await ask("PUT", "canary", json={"weights": {"latest": 0.5}})
        seen = set()
        for _ in itertools.takewhile(lambda _: len(seen) < 2, range(1000)):
            seen.add(await answers())
        assert seen == {"1", "2"}
        await ask("PUT", "canary", json={"weights": {}})
        assert (await ask("POST", "promote", json={"version": "mine"}))["labels"]["stable"] == "2"
        for path, content in (
            ("labels", {"labels": {"x": "9"}}),
            ("canary", {"weights": {"2": 1.5}}),
            ("labels", {"names": {}}),
        ):
            assert (await ask("PUT", path, 404 if "9" in str(content) else 400, json=content))["error"]
