"""``flower-grpc`` against Flower's own classic server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest

from locex.api import Stopped
from locex.errors import BadParameters, FederationLost, PrivacyRefused
from locex_flower.grpc import FlowerGrpc

pytestmark = pytest.mark.filterwarnings("ignore:.click.utils:DeprecationWarning")  # typer's, at the import of flwr
NOBODY = 1  # a port on which nothing listens


@pytest.fixture
def server(kit, spawn, tmp_path):
    """Start a stock server; returns its process, address and the file of its results."""

    def start(rounds, nodes=2, tls="-", port=None):
        port = port or kit.free_port()
        out = tmp_path / "results.json"
        program = kit.HERE / "programs" / "classic_server.py"
        process = spawn(sys.executable, program, port, rounds, out, nodes, tls)
        return process, port, out

    return start


def results(process, out):
    assert process.wait(150) == 0
    return json.loads(out.read_text())


def test_a_stock_server_drives_two_nodes_to_the_weighted_average(kit, server, join):
    process, port, out = server(rounds=3)
    one, two = kit.FakeParticipant(step=1, examples=1), kit.FakeParticipant(step=4, examples=2)
    one.metrics = {"flag": True, "count": 3, "share": np.float32(0.5), "text": "a", "raw": b"\x01", "not": [1]}
    runs = [join(FlowerGrpc(), node, f"127.0.0.1:{port}", patience=150) for node in (one, two)]
    for run in runs:
        assert run.result(150) is None

    told = results(process, out)
    averages = [weights[0][0][0] for weights in told["globals"]]
    np.testing.assert_allclose(averages, [0, 3, 6, 9])
    assert [len(node.fits) for node in (one, two)] == [3, 3]
    assert [len(node.evaluations) for node in (one, two)] == [3, 3]
    assert told["losses"] == [[1, 0.5], [2, 0.5], [3, 0.5]]
    received, config = one.fits[1]
    assert isinstance(received, list)
    assert [array.shape for array in received] == [(2, 3), ()]
    assert config == {"server_round": 2, "rate": 0.5, "fast": True, "name": "x", "raw": b"\x00\x01"}
    assert type(config["fast"]) is bool
    rich = max(told["metrics"], key=len)
    assert rich == {
        "loss": "0.5", "flag": "True", "count": "3", "share": "0.5", "text": "'a'", "raw": r"b'\x01'"
    }  # fmt: skip
    assert any("connect" in reason for reason in one.told)


def test_a_killed_and_restarted_server_finds_its_nodes_again(kit, server, join):
    process, port, out = server(rounds=50)
    nodes = [kit.FakeParticipant(seconds=0.05) for _ in range(2)]
    runs = [join(FlowerGrpc(), node, f"127.0.0.1:{port}", patience=150) for node in nodes]
    kit.await_that(lambda: len(nodes[0].fits) > 2)
    kit.kill(process)
    kit.await_that(lambda: any("retrying in" in reason for reason in nodes[0].told))
    before = len(nodes[0].fits)

    process, port, out = server(rounds=2, port=port)
    for run in runs:
        assert run.result(150) is None
    assert len(results(process, out)["globals"]) == 3
    assert len(nodes[0].fits) == before + 2


def test_nobody_there_ends_in_federation_lost_after_the_patience(kit, join):
    node = kit.FakeParticipant()
    with pytest.raises(
        FederationLost, match=rf"127.0.0.1:{NOBODY} could not be reached for 0.5 s: UNAVAILABLE"
    ) as lost:
        join(FlowerGrpc(), node, f"127.0.0.1:{NOBODY}", patience=0.5).result(30)
    assert "server_address" in lost.value.remedy
    assert sum("retrying in" in reason for reason in node.told) >= 2


def test_a_stop_is_seen_while_nobody_is_there(kit, join):
    node = kit.FakeParticipant()
    run = join(FlowerGrpc(), node, f"127.0.0.1:{NOBODY}", patience=1500, backoff_initial=60, backoff_max=60)
    kit.await_that(lambda: any("retrying in" in reason for reason in node.told))
    node.stop.set()
    with pytest.raises(Stopped):
        run.result(30)


def test_a_stop_is_seen_while_the_server_is_silent(kit, server, join):
    _, port, _ = server(rounds=1, nodes=2)
    node = kit.FakeParticipant()
    run = join(FlowerGrpc(), node, f"127.0.0.1:{port}", patience=150)
    kit.await_that(lambda: any(reason.startswith("waiting for instructions") for reason in node.told))
    node.stop.set()
    with pytest.raises(Stopped):
        run.result(30)


def test_a_refused_round_is_the_servers_failure_and_the_node_stays(kit, server, join):
    process, port, out = server(rounds=3)
    good, careful = kit.FakeParticipant(), kit.FakeParticipant(step=9)
    careful.refuse = {2: BadParameters("layer.weight is not finite")}
    runs = [join(FlowerGrpc(), node, f"127.0.0.1:{port}", patience=150) for node in (good, careful)]
    for run in runs:
        assert run.result(150) is None
    told = results(process, out)
    assert told["failures"] == [[], ["parameters-refused: layer.weight is not finite"], []]
    assert len(careful.fits) == 3
    assert [weights[0][0][0] for weights in told["globals"]] == [0, 5, 6, 11]


def test_a_spent_privacy_budget_ends_the_participation_after_the_server_was_told(kit, server, join):
    _, port, out = server(rounds=1, nodes=1)
    node = kit.FakeParticipant()
    node.refuse = {1: PrivacyRefused("epsilon is spent")}
    with pytest.raises(PrivacyRefused, match="epsilon is spent"):
        join(FlowerGrpc(), node, f"127.0.0.1:{port}", patience=150).result(150)
    kit.await_that(lambda: "fit progress" in (out.parent / "server.log").read_text() or out.exists())
    assert "received 0 results and 1 failures" in (out.parent / "server.log").read_text()


def test_a_complete_node_leaves_a_server_that_goes_on(kit, server, join):
    _, port, _ = server(rounds=10, nodes=1)
    node = kit.FakeParticipant(rounds=2)
    assert join(FlowerGrpc(), node, f"127.0.0.1:{port}", patience=150).result(150) is None
    assert len(node.fits) == 2
    assert len(node.evaluations) == 2


def test_other_exceptions_of_the_node_come_out(kit, server, join):
    _, port, _ = server(rounds=1, nodes=1)
    node = kit.FakeParticipant()
    node.refuse = {1: ZeroDivisionError("a fault of ours")}
    with pytest.raises(ZeroDivisionError):
        join(FlowerGrpc(), node, f"127.0.0.1:{port}", patience=150).result(150)


def test_a_withheld_loss_passes_as_nan(kit, server, join):
    process, port, out = server(rounds=1, nodes=1)
    node = kit.FakeParticipant()
    node.loss = float("nan")
    assert join(FlowerGrpc(), node, f"127.0.0.1:{port}", patience=150).result(150) is None
    assert np.isnan(results(process, out)["losses"][0][1])


@pytest.fixture
def scripted():
    """An in-process server that speaks the classic stream as a test writes it: a generator per connection."""
    from flwr.proto import transport_pb2_grpc

    servers = []

    def start(*scripts):
        waiting = list(scripts)

        class Servicer(transport_pb2_grpc.FlowerServiceServicer):
            def Join(self, request_iterator, context):  # noqa: N802 -- gRPC's name
                yield from waiting.pop(0)(request_iterator, context)

        server = grpc.server(futures.ThreadPoolExecutor(4))
        transport_pb2_grpc.add_FlowerServiceServicer_to_server(Servicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait()


def goodbye(seconds):
    from flwr.proto.transport_pb2 import ServerMessage

    return ServerMessage(reconnect_ins=ServerMessage.ReconnectIns(seconds=seconds))


def test_a_server_may_send_a_node_away_and_have_it_back(kit, scripted, join):
    answers = []

    def away(requests, context):
        yield goodbye(1)
        answers.append(next(requests).disconnect_res.reason)

    def ended(requests, context):
        yield goodbye(0)
        answers.append(next(requests).disconnect_res.reason)

    address = scripted(away, ended)
    assert join(FlowerGrpc(), kit.FakeParticipant(), address).result(30) is None
    assert answers == [1, 4], "RECONNECT, then ACK"


def instruct(kind, server_round):
    """Return an instruction to "fit" or "evaluate"."""
    from flwr.common import ndarrays_to_parameters, serde
    from flwr.common.typing import EvaluateIns, FitIns
    from flwr.proto.transport_pb2 import ServerMessage

    parameters = ndarrays_to_parameters([np.ones((2, 3), np.float32), np.array(1)])
    config = {"server_round": server_round}
    if kind == "fit":
        return ServerMessage(fit_ins=serde.fit_ins_to_proto(FitIns(parameters, config)))
    return ServerMessage(evaluate_ins=serde.evaluate_ins_to_proto(EvaluateIns(parameters, config)))


def script(*kinds, leave=True):
    """Return a connection on which the server asks for round 1, then says goodbye or only ends the stream."""

    def run(requests, context):
        for kind in kinds:
            yield instruct(kind, 1)
            next(requests)
        if leave:
            yield goodbye(0)
            next(requests)

    return run


def test_a_complete_node_takes_part_in_a_last_round_that_the_server_repeats(kit, scripted, join):
    node = kit.FakeParticipant(rounds=1)
    address = scripted(script("fit", "evaluate", "fit", "evaluate"))
    assert join(FlowerGrpc(), node, address).result(30) is None
    assert (len(node.fits), len(node.evaluations)) == (2, 2)


def test_a_complete_node_comes_back_to_a_server_that_was_lost(kit, scripted, join):
    node = kit.FakeParticipant(rounds=1)
    address = scripted(script("fit", "evaluate", leave=False), script("fit", "evaluate"))
    assert join(FlowerGrpc(), node, address).result(30) is None
    assert (len(node.fits), len(node.evaluations)) == (2, 2)
    assert any("retrying in" in reason for reason in node.told)


@pytest.mark.parametrize(("linger", "patience"), [(0.5, 60), (60, 0.5), (0, 60)])
def test_a_complete_node_that_finds_no_server_again_leaves_in_peace(kit, scripted, join, linger, patience):
    node = kit.FakeParticipant(rounds=1)
    address = scripted(script("fit", "evaluate", leave=False))
    run = join(FlowerGrpc(), node, address, linger=linger, patience=patience)
    assert run.result(30) is None
    assert any("retrying in" in reason for reason in node.told) is (linger > 0)


def test_a_message_over_the_limit_is_told_with_its_remedy(kit, scripted, join):
    from flwr.proto.transport_pb2 import Parameters, ServerMessage

    def large(requests, context):
        yield ServerMessage(fit_ins=ServerMessage.FitIns(parameters=Parameters(tensors=[bytes(2 * 2**20)])))
        next(requests, None)

    with pytest.raises(FederationLost, match="larger than") as lost:
        join(FlowerGrpc(), kit.FakeParticipant(), scripted(large), max_message_mb=1).result(30)
    assert "max_message_mb" in lost.value.remedy


def test_a_buffer_that_comes_back_as_a_float_reaches_the_participant_as_it_is(kit, scripted, join):
    from flwr.common import ndarrays_to_parameters, serde
    from flwr.common.typing import FitIns
    from flwr.proto.transport_pb2 import ServerMessage

    def averaged(requests, context):
        arrays = [np.ones((2, 3), np.float32), np.array(2.5)]
        yield ServerMessage(fit_ins=serde.fit_ins_to_proto(FitIns(ndarrays_to_parameters(arrays), {})))
        next(requests)
        yield goodbye(0)
        next(requests)

    node = kit.FakeParticipant()
    assert join(FlowerGrpc(), node, scripted(averaged)).result(30) is None
    received = node.fits[0][0]
    assert [(array.dtype, array.shape) for array in received] == [(np.float32, (2, 3)), (np.float64, ())]
    assert received[1] == 2.5


def test_tensors_that_are_no_arrays_are_refused_without_unpickling(kit, scripted, join):
    from flwr.proto.transport_pb2 import Parameters, ServerMessage

    seen = []

    def poisoned(requests, context):
        yield ServerMessage(fit_ins=ServerMessage.FitIns(parameters=Parameters(tensors=[b"\x80\x04N."])))
        seen.append(next(requests).fit_res.status)
        yield goodbye(0)
        next(requests)

    node = kit.FakeParticipant()
    assert join(FlowerGrpc(), node, scripted(poisoned)).result(30) is None
    assert seen[0].code != 0
    assert "parameters-refused" in seen[0].message
    assert node.fits == []


def test_threads_of_lost_connections_end(kit, join):
    node = kit.FakeParticipant()
    before = threading.active_count()
    with pytest.raises(FederationLost):
        join(FlowerGrpc(), node, f"127.0.0.1:{NOBODY}", patience=0.5).result(30)
    kit.await_that(lambda: threading.active_count() <= before + 1)  # the pool's own thread stays


@pytest.fixture
def tls(tmp_path):
    """A folder with ca.pem, server.pem and server.key for 127.0.0.1."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=locex"
    command += " -addext subjectAltName=IP:127.0.0.1 -keyout server.key -out server.pem"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    shutil.copy(tmp_path / "server.pem", tmp_path / "ca.pem")
    return tmp_path


def test_root_certificates_mean_tls(kit, server, join, tls):
    process, port, out = server(rounds=1, nodes=1, tls=tls)
    address = f"127.0.0.1:{port}"
    with pytest.raises(FederationLost):
        join(FlowerGrpc(), kit.FakeParticipant(), address, insecure=False, patience=2).result(30)
    node = kit.FakeParticipant()
    assert join(FlowerGrpc(), node, address, patience=150, roots=tls / "ca.pem").result(150) is None
    assert len(node.fits) == 1
    assert results(process, out)["failures"] == [[]]


def test_the_modules_of_the_entry_points_import_no_framework():
    program = "import sys, locex_flower.grpc as a, locex_flower.superlink as b; a.FlowerGrpc().locex_config_model();"
    program += "b.FlowerSuperlink().locex_config_model(); print({'flwr', 'grpc', 'httpx'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert told.strip() == "set()"


def test_flower_does_not_phone_home_and_writes_into_the_runs_folder(tmp_path):
    program = f"""
import logging, os, pathlib
from locex.api import FederationContext
from locex_flower.grpc import FlowerGrpc
plugin = FlowerGrpc()
plugin.locex_create_federation(plugin.locex_config_model()(), FederationContext("a:1", pathlib.Path({str(tmp_path)!r})))
from flwr.supercore import telemetry, utils
print(telemetry.FLWR_TELEMETRY_ENABLED, os.environ["FLWR_DISABLE_UPDATE_CHECK"], utils.get_flwr_home())
print(logging.getLogger("flwr").handlers)
"""
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert told.splitlines() == [f"0 1 {tmp_path / 'flwr'}", "[]"]
