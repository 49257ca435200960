"""``flower-superlink`` against Flower's own SuperLink."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from flwr.proto.message_pb2 import PullObjectResponse

from locex.api import Stopped
from locex.errors import BadParameters, FederationLost, InvalidConfiguration
from locex_flower.superlink import FlowerSuperlink

pytestmark = [
    pytest.mark.filterwarnings("ignore:.click.utils:DeprecationWarning"),  # typer's, at the import of flwr
    pytest.mark.timeout(300),  # a run is five starts of Flower's programs
]


def test_a_stock_server_app_drives_two_nodes(kit, superlink, submit, join):
    _, port = superlink()
    out = submit(port)
    one, two = kit.FakeParticipant(step=1, examples=1), kit.FakeParticipant(step=4, examples=2, rounds=2)
    for node in (one, two):
        node.weights["layer.count"] = node.weights["layer.count"].reshape(1)
        node.metrics = {"flag": True, "count": 3, "text": "a", "raw": b"\x01"}
    one.refuse = {2: BadParameters("layer.weight is not finite")}
    runs = [join(FlowerSuperlink(), node, f"127.0.0.1:{port}", linger=0.5) for node in (one, two)]
    for run in runs:
        assert run.result(150) is None

    told = json.loads(out.read_text())
    assert told["arrays"]["layer.weight"] == [[7.0] * 3] * 2, (
        "3 in the first round, then 3 + 4 of the second node alone"
    )
    assert told["train"]["1"] == {"loss": 0.5, "flag": 1, "count": 3}
    assert told["evaluate"]["2"] == {"loss": 0.5, "accuracy": 0.25}
    assert [len(node.fits) for node in (one, two)] == [2, 2]
    assert [len(node.evaluations) for node in (one, two)] == [2, 2]
    received, config = one.fits[1]
    assert list(received) == ["layer.weight", "layer.count"]
    assert received["layer.count"].dtype == float
    assert config == {"server-round": 2, "server_round": 2}
    assert any(reason.startswith("connected") for reason in one.told)


@pytest.mark.slow
def test_a_restarted_superlink_finds_its_nodes_again(kit, superlink, submit, join, spawn):
    process, port = superlink()
    submit(port, rounds=50)
    nodes = [kit.FakeParticipant() for _ in range(2)]
    for node in nodes:
        node.weights["layer.count"] = node.weights["layer.count"].reshape(1)
    runs = [join(FlowerSuperlink(), node, f"127.0.0.1:{port}", linger=0.5, patience=150) for node in nodes]
    kit.await_that(lambda: nodes[0].fits)
    kit.kill(process)
    kit.await_that(lambda: any("ConnectError" in reason for reason in nodes[0].told))

    superlink(port)
    out = submit(port, rounds=1)
    for run in runs:
        assert run.result(150) is None
    assert any("401" in reason for node in nodes for reason in node.told)
    assert "1" in json.loads(out.read_text())["evaluate"]


@pytest.fixture
def faulty():
    """Pass calls of the Fleet API on to a SuperLink; each fault answers the first call of its path instead."""
    with contextlib.ExitStack() as closing:

        def start(port, faults):
            client = closing.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60))

            class Handler(BaseHTTPRequestHandler):
                def do_POST(self):
                    content = self.rfile.read(int(self.headers["Content-Length"]))
                    kept = {name: value for name, value in self.headers.items() if name != "Host"}
                    fault = faults.pop(self.path.removeprefix("/v1/fleet/"), None)
                    status, answer = fault or _passed_on(client, self.path, content, kept)
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            closing.callback(server.server_close)
            closing.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return server.server_port

        yield start


def _passed_on(client, path, content, headers):
    response = client.post(path, content=content, headers=headers)
    return response.status_code, response.content


@pytest.mark.slow
def test_a_fault_of_the_superlink_costs_one_message_at_most_and_no_registration(kit, superlink, submit, join, faulty):
    _, port = superlink()
    faults = dict.fromkeys(["pull-messages", "push-messages", "push-object"], (500, b"Internal Server Error"))
    faults["pull-object"] = 200, PullObjectResponse(object_found=False).SerializeToString()
    proxy = faulty(port, faults)
    node = kit.FakeParticipant(rounds=2)
    node.weights["layer.count"] = node.weights["layer.count"].reshape(1)
    run = join(FlowerSuperlink(), node, f"127.0.0.1:{proxy}", linger=0.1)
    out = submit(port, nodes=1, timeout=15.0)
    kit.await_that(lambda: len(node.evaluations) == 2)  # the first fit's message is lost, its run goes on
    assert [config["server_round"] for _, config in node.fits] == [2]
    assert not faults
    kit.await_that(out.exists)
    assert sum("connected" in reason for reason in node.told) == 1
    assert sum("HTTP 500" in reason for reason in node.told) == 3
    assert run.result(150) is None


def test_nobody_there_ends_in_federation_lost_after_the_patience(kit, join):
    node = kit.FakeParticipant()
    with pytest.raises(FederationLost, match=r"could not be reached .* ConnectError"):
        join(FlowerSuperlink(), node, "127.0.0.1:1", patience=0.5).result(30)
    assert sum("retrying in" in reason for reason in node.told) >= 2


def test_a_stop_is_seen_while_nobody_is_there(kit, join):
    node = kit.FakeParticipant()
    run = join(FlowerSuperlink(), node, "127.0.0.1:1", patience=600, backoff_initial=60, backoff_max=60)
    kit.await_that(lambda: any("retrying in" in reason for reason in node.told))
    node.stop.set()
    with pytest.raises(Stopped):
        run.result(30)


def test_a_stop_is_seen_while_the_superlink_has_nothing_to_do(kit, superlink, join):
    _, port = superlink()
    node = kit.FakeParticipant()
    run = join(FlowerSuperlink(), node, f"127.0.0.1:{port}")
    kit.await_that(lambda: any(reason.startswith("connected") for reason in node.told))
    node.stop.set()
    with pytest.raises(Stopped):
        run.result(30)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "FileNotFoundError"), (b"no key", "ValueError"), ("ed25519", "no EC P-384 key")]
)
def test_a_private_key_that_cannot_be_used_is_named(kit, join, tmp_path, content, reason):
    path = tmp_path / "key"
    if content == "ed25519":
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidConfiguration, match=reason):
        join(FlowerSuperlink(), kit.FakeParticipant(), "127.0.0.1:1", private_key_file=path)


def test_a_private_key_needs_tls(kit, join, tmp_path):
    path = tmp_path / "key"
    command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", path]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(InvalidConfiguration, match="over TLS only"):
        join(FlowerSuperlink(), kit.FakeParticipant(), "127.0.0.1:1", private_key_file=path)
