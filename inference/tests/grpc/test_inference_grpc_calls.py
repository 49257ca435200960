"""What the server does with calls that are wrong, late, too many, too large, or not allowed."""

import datetime as dt
import gzip
import json
import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from locex.errors import InvalidConfiguration
from locex.web.auth import Tokens
from locex.web.serve import Tls
from locex_inference.access_log import AccessLog
from locex_inference.grpc.server import Limits

INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture
def channel(service):
    with grpc.insecure_channel(service.address) as found:
        yield found


@pytest.fixture
def stub(channel):
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(model="linear", shape=(1, 4), raw=bytes(16), name="x", datatype="FP32", **fields):
    found = service_pb2.ModelInferRequest(model_name=model, **fields)
    found.inputs.add(name=name, datatype=datatype, shape=shape)
    if raw is not None:
        found.raw_input_contents.append(raw)
    return found


def slow():
    return request("slow", (1, 1), bytes(4))


def occupy(gate, stub):
    """Send a request to the slow model and return when it runs."""
    gate.open.clear()
    while gate.entered.acquire(blocking=False):
        pass
    running = stub.ModelInfer.future(slow())
    assert gate.entered.acquire(timeout=30)
    return running


def until_dropped(service):
    """Wait until only the request that runs is left of the slow model's: a client does not hear when that is."""
    version = service.models.registry.choose("slow")
    while version.in_flight > 1:
        threading.Event().wait(0.001)


def refused(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value


@pytest.mark.parametrize(
    ("sent", "code", "text"),
    [
        (request(model="absent"), StatusCode.NOT_FOUND, "absent"),
        (request(model="🐍" * 100_000), StatusCode.NOT_FOUND, "🐍"),
        (request(model_version="9"), StatusCode.NOT_FOUND, "9"),
        (request(name="z"), StatusCode.INVALID_ARGUMENT, "'z'"),
        (request(datatype="FP64", raw=bytes(32)), StatusCode.INVALID_ARGUMENT, "FP64"),
        (request(datatype="COMPLEX"), StatusCode.INVALID_ARGUMENT, "COMPLEX"),
        (request(raw=bytes(15)), StatusCode.INVALID_ARGUMENT, "15"),
        (request(raw=bytes(17)), StatusCode.INVALID_ARGUMENT, "17"),
        (request(shape=(1, 5), raw=bytes(20)), StatusCode.INVALID_ARGUMENT, r"[1, 5]"),
        (request(shape=(1, -4)), StatusCode.INVALID_ARGUMENT, "-4"),
        (request(shape=(2**62, 2**62)), StatusCode.INVALID_ARGUMENT, "16 arrived"),
        (request(shape=(0, 2**62), raw=b""), StatusCode.INVALID_ARGUMENT, "shape"),
        (request(shape=[1] * 100, raw=bytes(4)), StatusCode.INVALID_ARGUMENT, "100 axes"),
        (request(raw=None), StatusCode.INVALID_ARGUMENT, "4 values"),
        (request("echo-FP16", raw=None), StatusCode.INVALID_ARGUMENT, "values"),
        (request("echo-FP16", raw=None, datatype="FP16"), StatusCode.INVALID_ARGUMENT, "raw"),
        (request("echo-BYTES", (1, 1), b"\x05\0\0\0ab", datatype="BYTES"), StatusCode.INVALID_ARGUMENT, "text"),
        (request("echo-BYTES", (1, 2**40), b"\0\0\0\0", datatype="BYTES"), StatusCode.INVALID_ARGUMENT, "texts"),
        (request("echo-BOOL", (1, 2), b"\x01\x02", datatype="BOOL"), StatusCode.INVALID_ARGUMENT, "neither"),
        (request("broken", (1, 1), bytes(4)), StatusCode.INTERNAL, "broken"),
    ],
)
def test_what_is_wrong_with_a_request_decides_the_code(stub, sent, code, text):
    error = refused(stub.ModelInfer, sent)
    assert error.code() == code
    assert text in error.details()


def test_contents_and_inputs_must_match_one_another(stub):
    surplus = request()
    surplus.raw_input_contents.append(b"more")
    twice = request()
    twice.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    twice.raw_input_contents.append(bytes(16))
    missing = request("two", (1, 2), bytes(8), name="a")
    missing.inputs.add(name="b", datatype="FP32", shape=[1, 2])
    both = request()
    both.inputs[0].contents.fp32_contents.extend([1] * 4)
    foreign = request(raw=None)
    foreign.inputs[0].contents.int64_contents.extend([1] * 4)
    large = request("echo-INT8", raw=None, datatype="INT8", shape=(1, 1))
    large.inputs[0].contents.int_contents.append(300)
    half = request(raw=None)
    half.inputs[0].parameters["shared_memory_region"].string_param = "r"
    outputs = request()
    outputs.outputs.add(name="y")
    outputs.outputs.add(name="y")
    classes = request()
    classes.outputs.add(name="y").parameters["classification"].string_param = "3"
    empty = request()
    empty.parameters["timeout"].SetInParent()
    for sent in (surplus, twice, missing, both, foreign, large, half, outputs, classes, empty):
        assert refused(stub.ModelInfer, sent).code() == StatusCode.INVALID_ARGUMENT


def test_typed_contents_are_taken_and_given(stub, weights):
    sent = request(raw=None, shape=(1, 4))
    sent.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    expected = np.array([1, 2, 3, 4], np.float32) @ weights
    raw = stub.ModelInfer(sent)
    np.testing.assert_allclose(np.frombuffer(raw.raw_output_contents[0], np.float32), expected, rtol=1e-5)
    sent.parameters["binary_data_output"].bool_param = False
    typed = stub.ModelInfer(sent)
    assert not typed.raw_output_contents
    np.testing.assert_allclose(typed.outputs[0].contents.fp32_contents, expected, rtol=1e-5)


def test_typed_texts_come_back(stub):
    sent = request("echo-BYTES", (1, 2), None, datatype="BYTES")
    sent.inputs[0].contents.bytes_contents.extend([b"a", b"\xff"])
    sent.parameters["binary_data_output"].bool_param = False
    assert list(stub.ModelInfer(sent).outputs[0].contents.bytes_contents) == [b"a", b"\xff"]


def test_bytes_that_are_no_message_are_an_invalid_argument(channel):
    call = channel.unary_unary(INFER)
    for content in (b"\xff" * 20, request().SerializeToString()[:-3], b"\x0a\x80", b"\x3a\xff\xff\xff\xff\x7f" * 4000):
        assert refused(call, content).code() == StatusCode.INVALID_ARGUMENT
    assert (
        refused(channel.unary_unary("/inference.GRPCInferenceService/Absent"), b"").code() == StatusCode.UNIMPLEMENTED
    )


def test_a_deadline_ends_the_wait_and_the_request_does_not_run(service, stub):
    gate = service.models.gate
    running = occupy(gate, stub)
    runs = gate.runs
    assert refused(stub.ModelInfer, slow(), timeout=0.05).code() == StatusCode.DEADLINE_EXCEEDED
    late = slow()
    late.parameters["timeout"].int64_param = 1000
    assert refused(stub.ModelInfer, late).code() == StatusCode.DEADLINE_EXCEEDED
    until_dropped(service)
    gate.open.set()
    running.result(30)
    stub.ModelInfer(slow())
    assert gate.runs == runs + 1


def test_a_cancelled_request_does_not_run_and_more_than_may_wait_are_refused(service, stub):
    gate = service.models.gate
    running = occupy(gate, stub)
    runs = gate.runs
    waiting = [stub.ModelInfer.future(slow()) for _ in range(3)]
    codes, told = [], threading.Semaphore(0)
    for each in waiting:
        each.add_done_callback(lambda call: (codes.append(call.code()), told.release()))
    assert told.acquire(timeout=30)
    assert told.acquire(timeout=30)
    assert codes == [StatusCode.RESOURCE_EXHAUSTED] * 2
    for each in waiting:
        each.cancel()
    assert told.acquire(timeout=30)
    until_dropped(service)
    gate.open.set()
    running.result(30)
    stub.ModelInfer(slow())
    assert gate.runs == runs + 1


def test_a_stream_ends_with_a_status_where_the_caller_wants_that(stub):
    def replies(*metadata):
        return stub.ModelStreamInfer(iter([request(model="absent", id="3"), request()]), metadata=metadata)

    first, second = replies()
    assert "absent" in first.error_message
    assert first.infer_response.id == "3"
    assert not second.error_message
    with pytest.raises(grpc.RpcError) as caught:
        list(replies(("triton_grpc_error", "true")))
    assert caught.value.code() == StatusCode.NOT_FOUND
    [broken] = stub.ModelStreamInfer(iter([service_pb2.ModelInferRequest()]))
    assert broken.error_message


def test_messages_are_bounded_before_and_after_decompression(start_service):
    with start_service(limits=Limits(message_bytes=100_000)) as found, grpc.insecure_channel(found.address) as channel:
        call = channel.unary_unary(INFER)
        assert refused(call, bytes(100_001)).code() == StatusCode.RESOURCE_EXHAUSTED
        bomb = bytes(50_000_000)
        assert len(gzip.compress(bomb)) < 100_000
        assert refused(call, bomb, compression=grpc.Compression.Gzip).code() == StatusCode.RESOURCE_EXHAUSTED
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(request()).outputs[0].name == "y"


def test_requests_are_written_to_the_access_log_with_their_status(start_service, caplog):
    caplog.set_level("INFO", "locex.access")
    with start_service(parts={"access_log": AccessLog(1)}) as found, grpc.insecure_channel(found.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.ModelInfer(request())
        refused(stub.ModelInfer, request(model="absent"))
        list(stub.ModelStreamInfer(iter([request()])))
    lines = [json.loads(record.message) for record in caplog.records if record.name == "locex.access"]
    assert [(line["method"], line["status"], line["model"]) for line in lines] == [
        ("ModelInfer", "OK", "linear"),
        ("ModelInfer", "NOT_FOUND", "absent"),
        ("ModelStreamInfer", "OK", "linear"),
    ]
    assert all(line["transport"] == "grpc" and line["remote"].startswith("ipv4:127.0.0.1") for line in lines)


def test_tokens_open_what_their_scope_allows(start_service, tmp_path):
    file = tmp_path / "tokens"
    file.write_text("read:r\nrun:u\nadmin:a\n")
    file.chmod(0o600)
    with start_service(tokens=Tokens(file)) as found, grpc.insecure_channel(found.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def code(call, sent, token):
            metadata = [("authorization", f"Bearer {token}")] if token else []
            try:
                call(sent, metadata=metadata)
            except grpc.RpcError as error:
                return error.code()
            return StatusCode.OK

        metadata = service_pb2.ServerMetadataRequest()
        unload = service_pb2.RepositoryModelUnloadRequest(model_name="two")
        register = service_pb2.SystemSharedMemoryRegisterRequest(name="r", key="absent", byte_size=1)
        expected = {
            "": ("OK", *["UNAUTHENTICATED"] * 5),
            "wrong": ("OK", *["UNAUTHENTICATED"] * 5),
            "r": ("OK", "OK", "OK", "PERMISSION_DENIED", "PERMISSION_DENIED", "PERMISSION_DENIED"),
            "u": ("OK", "OK", "OK", "OK", "PERMISSION_DENIED", "PERMISSION_DENIED"),
            "a": ("OK", "OK", "OK", "OK", "OK", "INVALID_ARGUMENT"),
        }
        for token, codes in expected.items():
            got = (
                code(stub.ServerReady, service_pb2.ServerReadyRequest(), token),
                code(stub.ModelReady, service_pb2.ModelReadyRequest(name="two"), token),
                code(stub.ServerMetadata, metadata, token),
                code(stub.ModelInfer, request(), token),
                code(stub.RepositoryModelUnload, unload, token),
                code(stub.SystemSharedMemoryRegister, register, token),
            )
            assert tuple(each.name for each in got) == codes
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ModelStreamInfer(iter([request()])))
        assert caught.value.code() == StatusCode.UNAUTHENTICATED


def test_shared_memory_that_is_off_is_refused(start_service):
    with start_service(shared_memory=False) as found, triton.InferenceServerClient(found.address) as client:
        with pytest.raises(triton.InferenceServerException, match="off") as caught:
            client.register_system_shared_memory("r", "/r", 8)
        assert caught.value.status() == "StatusCode.PERMISSION_DENIED"


def test_calls_under_way_end_when_the_server_stops(start_service):
    with start_service() as found, grpc.insecure_channel(found.address) as channel:
        call = occupy(found.models.gate, service_pb2_grpc.GRPCInferenceServiceStub(channel))
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        stopping = found.send(found.server.stop(30))
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        found.models.gate.open.set()
        stopping.result(30)
        assert call.result(30).outputs[0].name == "y"


def test_a_port_that_is_taken_is_told(service, start_service):
    with pytest.raises(InvalidConfiguration, match=str(service.server.port)), start_service(port=service.server.port):
        pass


def test_tls_with_certificates_of_callers(start_service, tmp_path):
    certificate, key = _certificate(tmp_path)
    with start_service(tls=Tls(certificate, key, certificate)) as found:
        root = certificate.read_bytes()
        own = (key.read_bytes(), root)
        for pair, works in ((own, True), ((None, None), False)):
            credentials = grpc.ssl_channel_credentials(root, *pair)
            address = f"localhost:{found.server.port}"
            with grpc.secure_channel(address, credentials) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                if works:
                    assert stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=30).live
                else:
                    error = refused(stub.ServerLive, service_pb2.ServerLiveRequest(), timeout=30)
                    assert error.code() == StatusCode.UNAVAILABLE
    key.write_text("no key")
    with pytest.raises(InvalidConfiguration), start_service(tls=Tls(certificate, key)):
        pass


def _certificate(folder):
    """Return a certificate, its own CA, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths
