"""Whatever bytes arrive: an answer or INVALID_ARGUMENT, and a server that goes on."""

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from locex_inference.tensors import DTYPES

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
sizes = st.one_of(st.integers(0, 4), st.integers(-(2**63), 2**63 - 1))


@pytest.fixture(scope="module")
def call(service):
    with grpc.insecure_channel(service.address) as channel:
        yield channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")


@pytest.fixture(autouse=True)
def _still_alive(call):
    yield
    request = service_pb2.ModelInferRequest(model_name="linear", raw_input_contents=[bytes(16)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    response = service_pb2.ModelInferResponse.FromString(call(request.SerializeToString(), timeout=30))
    assert response.outputs[0].name == "y"


def outcome(call, content):
    answer, state = None, None
    try:
        answer = call(content, timeout=30)
    except grpc.RpcError as error:
        state = (error.code(), bool(error.details()))
    assert state in {None, (StatusCode.INVALID_ARGUMENT, True), (StatusCode.NOT_FOUND, True)}
    return answer


@st.composite
def requests(draw):
    datatype = draw(st.sampled_from([*DTYPES, "FP8", ""]))
    request = service_pb2.ModelInferRequest(model_name=f"echo-{datatype}" if datatype in DTYPES else "linear")
    for _ in range(draw(st.integers(0, 3))):
        tensor = request.inputs.add(name=draw(st.sampled_from(["x", "x", "y", ""])), datatype=datatype)
        tensor.shape.extend(draw(st.lists(sizes, max_size=4)))
        if draw(st.booleans()):
            tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=4)))
        if draw(st.booleans()):
            tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=4), max_size=4)))
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=40), max_size=3)))
    return request


@QUICK
@given(request=requests())
def test_requests_of_any_shape_and_content(call, request):
    outcome(call, request.SerializeToString())


@QUICK
@given(content=st.binary(max_size=300))
def test_any_bytes(call, content):
    outcome(call, content)


@QUICK
@given(rows=st.integers(0, 5), cut=st.integers(-20, 20), data=st.data())
def test_raw_contents_are_whole_or_refused(call, rows, cut, data):
    raw = bytes(16 * rows)
    raw = raw[: len(raw) + cut] if cut < 0 else raw + bytes(cut)
    request = service_pb2.ModelInferRequest(model_name="linear", raw_input_contents=[raw])
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 4])
    answer = outcome(call, request.SerializeToString())
    if len(raw) != 16 * rows:
        assert answer is None
    elif rows:
        response = service_pb2.ModelInferResponse.FromString(answer)
        assert np.frombuffer(response.raw_output_contents[0], np.float32).size == 3 * rows


@QUICK
@given(position=st.integers(0, 20_100), byte=st.integers(0, 255))
def test_a_large_message_with_one_wrong_byte(call, position, byte):
    request = service_pb2.ModelInferRequest(model_name="echo-FP32", id="i", raw_input_contents=[bytes(20_000)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 5000])
    content = bytearray(request.SerializeToString())
    content[position % len(content)] = byte
    outcome(call, bytes(content))
