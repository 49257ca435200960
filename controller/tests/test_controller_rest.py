"""The collector as a service, over HTTP."""

import asyncio
import io
import json
import os
import re
import signal
import socket
import sys
import zipfile

import aiohttp
import numpy as np
import pytest
from openapi_spec_validator import validate
from safetensors.numpy import load, save

from locex.processes.child import identity_of

PLAN = {"fraction_fit": 1, "min_fit_clients": 1, "min_available_clients": 1}


class Service:
    """A collector in a process of its own."""

    def __init__(self, environment):
        self.environment = environment

    async def start(self):
        command = [sys.executable, "-c", "from locex.cli import main; main()", "collector", "serve"]
        self.process = await asyncio.create_subprocess_exec(
            *command, env=self.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        line = (await self.process.stdout.readline()).decode()
        assert line.startswith("listening on "), (await self.process.stderr.read()).decode()
        self.http = aiohttp.ClientSession(line.split()[-1])

    async def end(self, number=signal.SIGTERM):
        await self.http.close()
        if self.process.returncode is None:
            self.process.send_signal(number)
        await self.process.communicate()

    async def ask(self, method, path, **arguments):
        async with self.http.request(method, path, **arguments) as response:
            body = await response.read()
            return response.status, json.loads(body) if "json" in response.content_type else body

    async def until(self, training_id, fits):
        while not fits(report := (await self.ask("GET", f"/job/{training_id}"))[1]):
            assert report["status"] != "FAILED", report
            await asyncio.sleep(0.05)
        return report


@pytest.fixture
async def service(collector_environment):
    service = Service({**collector_environment, "LOCEX_MAX_TRAININGS": "1"})
    await service.start()
    yield service
    await service.end()


def artefact(tensors):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("manifest.json", "{}")
        archive.writestr("weights.safetensors", save(tensors, metadata={"names": json.dumps(list(tensors))}))
    return content.getvalue()


async def test_a_training_from_the_model_to_its_weights(service, flower_node, collector_port):
    metadata = {"model_name": "m", "model_version": "1", "meta": {"library": "pytorch"}}
    tensors = {"weight": np.full((2, 3), 5, np.float32), "count": np.array(7, np.int64)}
    assert (await service.ask("POST", "/model/", json=metadata))[0] == 201
    assert (await service.ask("POST", "/model", json=metadata))[0] == 409
    assert (await service.ask("GET", "/model/m/1"))[0] == 404
    form = aiohttp.FormData({"file": io.BytesIO(artefact(tensors))})
    assert (await service.ask("PUT", "/model/m/1", data=form))[0] == 204
    query = {"model_name": "m", "model_version": "1"}
    assert (await service.ask("GET", "/model/meta", params=query))[1]["meta"]["library"] == "pytorch"
    assert (await service.ask("GET", "/model/m/1"))[1] == artefact(tensors)
    assert [one["model_name"] for one in (await service.ask("GET", "/model"))[1]] == ["m"]

    body = {
        "strategy": "avg",
        "model_name": "m",
        "model_version": "1",
        "server_conf": {"num_rounds": "2", "round_timeout": 30},
        "strategy_conf": {**PLAN, "min_fit_clients": "2", "eta": None},
        "client_conf": [{"config_id": "x"}],
        "privacy-mechanisms": {},
        "configuration_id": 4,
    }
    status, started = await service.ask("POST", "/job/config/7/", json=body)
    assert (status, started["status"]) == (200, "WAITING")
    assert started["address"] == f"127.0.0.1:{collector_port}"
    assert started["warnings"] == ["'client_conf' was ignored: nodes get their configuration from their own jobs"]
    nodes = [flower_node(collector_port, 1, 30), flower_node(collector_port, 4, 10)]
    report = await service.until("7", lambda report: report["status"] == "FINISHED")
    assert [(one["round"], len(one["participants"]), one["examples"]) for one in report["history"]] == [
        (1, 2, 40),
        (2, 2, 40),
    ]
    assert report["history"][1]["evaluation"] == pytest.approx({"loss": 1.75, "accuracy": 0.175})
    status = (await service.ask("GET", "/job/status/7"))[1]
    assert (status["status"], status["round"], status["id"]) == ("FINISHED", 2, None)
    trained = load((await service.ask("GET", "/job/7/model"))[1])
    np.testing.assert_array_equal(trained["weight"], np.full((2, 3), 8.5, np.float32))
    assert (await service.ask("GET", "/jobs"))[1]["total"] == 1
    told = json.loads(nodes[0].communicate(timeout=20)[0].splitlines()[0])
    assert told == {"config_id": "4", "server_round": 1, "num_rounds": 2, "fit_clients": 2}


async def test_errors_name_what_is_wrong(service, collector_port):
    async def refused(body, training_id="8"):
        status, problem = await service.ask("POST", f"/job/config/{training_id}/", json=body)
        return status, problem["code"], [error["path"] for error in problem.get("errors", ())]

    assert await refused({"server_conf": {"num_rounds": 0}}) == (
        422,
        "configuration-invalid",
        ["/server_conf/num_rounds"],
    )
    assert await refused({"strategy_conf": {"fraction_fit": 2}}) == (
        422,
        "configuration-invalid",
        ["/strategy_conf/fraction_fit"],
    )
    assert await refused({"strategy_conf": {"eta": 1}}) == (422, "configuration-invalid", ["/strategy_conf/eta"])
    assert await refused({"training_id": 9}) == (422, "configuration-invalid", ["/training_id"])
    assert await refused({"strategy": "median"}) == (422, "plugin-unknown", ["/strategy"])
    assert await refused({"strategy": "median", "privacy-mechanisms": {"dp-fixed": {}}}) == (
        422,
        "configuration-invalid",
        ["/strategy"],
    )
    assert (await service.ask("GET", "/jobs", params={"offset": 2**63}))[0] == 422
    assert (await service.ask("GET", "/job/8"))[0] == 404
    assert (await service.ask("GET", "/job/status/8"))[1]["status"] == "INACTIVE"

    assert (await service.ask("POST", "/job/config/1/", json={"strategy_conf": PLAN}))[0] == 200
    assert (await refused({}, "1"))[:2] == (409, "job-active")
    assert (await refused({}))[:2] == (429, "queue-full")
    status = (await service.ask("GET", "/job/status/1"))[1]
    assert (await service.ask("GET", "/job/1/model"))[0] == 404
    assert (await service.ask("POST", "/job/stop/1"))[1]["status"] == "STOPPED"
    assert identity_of(status["id"]) is None
    assert (await service.ask("DELETE", "/job/1"))[1]["status"] == "STOPPED"
    assert (await service.ask("DELETE", "/job/2"))[0] == 404
    with socket.create_server(("127.0.0.1", collector_port)):
        assert await refused({"port": collector_port}) == (422, "configuration-invalid", ["/port"])


async def test_the_document_describes_a_training(service):
    document = (await service.ask("GET", "/openapi.json"))[1]
    validate(document)
    schemas = document["components"]["schemas"]
    assert {"strategy", "privacy-mechanisms", "server_conf", "federation"} <= set(
        schemas["TrainingRequest"]["properties"]
    )
    assert "num_rounds" in schemas["ServerConf"]["properties"]
    assert set(re.findall(r'"#/([^/]+)/', json.dumps(document))) == {"components"}


async def test_bytes_that_nothing_refers_to_are_swept_at_start(collector_environment, tmp_path):
    orphan = tmp_path / "state" / "blobs" / "ab" / ("ab" * 32)
    orphan.parent.mkdir(parents=True, mode=0o700)
    orphan.write_bytes(b"left")
    os.utime(orphan, (0, 0))
    service = Service(collector_environment)
    await service.start()
    try:
        while orphan.exists():  # noqa: ASYNC110 -- a file's end is told in no other way
            await asyncio.sleep(0.05)
    finally:
        await service.end()


async def test_a_state_folder_has_one_owner(service):
    second = Service(service.environment)
    with pytest.raises(AssertionError, match="is in use by the process"):
        await second.start()


async def test_a_training_outlives_its_process_and_its_collector(collector_environment, flower_node, collector_port):
    service = Service(collector_environment)
    await service.start()
    try:
        body = {"server_conf": {"num_rounds": 6}, "strategy_conf": PLAN}
        assert (await service.ask("POST", "/job/config/1/", json=body))[0] == 200
        flower_node(collector_port, 1, 10, "pause")
        first = await service.until("1", lambda report: report["round"] >= 1)
        os.kill(first["id"], signal.SIGKILL)
        second = await service.until("1", lambda report: report["round"] > first["round"])
        assert second["resumes"] == 1
        await service.end(signal.SIGKILL)
        await service.start()
        report = await service.until("1", lambda report: report["status"] == "FINISHED")
        assert report["resumes"] == 2
        assert [one["round"] for one in report["history"]] == [1, 2, 3, 4, 5, 6]
        trained = load((await service.ask("GET", "/job/1/model"))[1])
        np.testing.assert_array_equal(trained["0"], np.full((2, 3), 6, np.float32))
        assert identity_of(first["id"]) is None
        assert identity_of(second["id"]) is None
    finally:
        await service.end()
