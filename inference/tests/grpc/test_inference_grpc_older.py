"""The clients of older nodes, with stubs as they were compiled, and what tools ask: health and reflection."""

import subprocess
import sys

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from locex_inference.errors import InvalidTensor
from locex_inference.grpc.messages import message
from locex_inference.grpc.tensor_proto import TensorProto, fill_tensor_proto, from_tensor_proto
from locex_inference.tensors import DTYPES

BASIC, EXTENDED = "basic_inference", "extended_inference"


@pytest.fixture
def older(start_service):
    with start_service() as found, grpc.insecure_channel(found.address) as channel:
        yield found, channel


def setup(channel, package="basic_inference_setup.", **fields):
    kind = message("basic_inference_setup.InferenceSetup")
    response = message("basic_inference_setup.InferenceSetupResponse")
    call = channel.unary_unary(f"/{package}BasicInferenceSetup/setup", kind.SerializeToString, response.FromString)
    request = kind(**{key: value for key, value in fields.items() if key != "transformations"})
    for step, params in fields.get("transformations", ()):
        request.transformations.add(id=step, params=params)
    return call(request)


def basic(channel, *requests, package="basic_inference."):
    kind = message("basic_inference.BasicInferenceRequest")
    response = message("basic_inference.BasicInferenceResponse")
    call = channel.stream_stream(
        f"/{package}BasicInferenceService/predict", kind.SerializeToString, response.FromString
    )
    tensors = [
        kind(id=number, tensor=message("basic_inference.Tensor32")(array=array.ravel().tolist(), shape=shape))
        for number, array, shape in requests
    ]
    return list(call(iter(tensors)))


def extended(channel, inputs):
    kind, response = (message(f"extended_inference.ExtendedInference{side}") for side in ("Request", "Response"))
    call = channel.stream_stream(
        "/extended_inference.ExtendedInferenceService/predict", kind.SerializeToString, response.FromString
    )
    request = kind(id=9)
    for name, array in inputs.items():
        fill_tensor_proto(request.input[name], array)
    [found] = call(iter([request]))
    return found


def test_basic_inference_answers_with_the_selected_model(older, weights):
    _, channel = older
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    with pytest.raises(grpc.RpcError, match="no model is selected") as caught:
        basic(channel, (1, x, [2, 4]))
    assert caught.value.code() == StatusCode.UNAVAILABLE
    assert setup(channel, model_name="linear", model_version="1").status == 200
    for package in ("basic_inference.", "", "other.package."):
        first, second = basic(channel, (1, x, [2, 4]), (2, 2 * x, [2, 4]), package=package)
        assert (first.id, second.id, list(first.tensor.shape)) == (1, 2, [2, 3])
        np.testing.assert_allclose(np.reshape(first.tensor.array, (2, 3)), x @ weights, rtol=1e-5)
        np.testing.assert_allclose(np.reshape(second.tensor.array, (2, 3)), 2 * x @ weights, rtol=1e-5)


def test_basic_inference_casts_to_what_the_model_takes_and_refuses_what_does_not_fit(older):
    _, channel = older
    assert setup(channel, model_name="echo-INT16").status == 200
    [found] = basic(channel, (1, np.array([1, -2]), [1, 2]))
    assert list(found.tensor.array) == [1, -2]
    for array, shape in (([0.5], [1, 1]), ([1e9], [1, 1]), ([float("nan")], [1, 1]), ([1, 2], [3]), ([1], [-1, -1])):
        with pytest.raises(grpc.RpcError) as caught:
            basic(channel, (1, np.array(array), shape))
        assert caught.value.code() == StatusCode.INVALID_ARGUMENT
    assert setup(channel, model_name="echo-BYTES").status == 200
    with pytest.raises(grpc.RpcError, match="BYTES"):
        basic(channel, (1, np.array([1]), [1, 1]))


def test_setup_loads_with_the_transformations_and_tells_faults_by_status(older):
    found, channel = older
    steps = [("scale", {"factor": "0.5", "axes": "[1, 2]", "flag": "True"})]
    assert setup(channel, package="", model_name="linear", transformations=steps).status == 200
    expected = {"preprocessing": [{"id": "scale", "parameters": {"factor": "0.5", "axes": [1, 2], "flag": "True"}}]}
    assert found.models.loaded == [("linear", expected)]
    assert found.parts.selection.model == "linear"
    for fields, status in (
        ({"model_name": "absent"}, 404),
        ({}, 400),
        ({"model_name": "linear", "model_version": "7"}, 404),
        ({"model_name": "linear", "transformations": [("scale", {"axes": "[1,"})]}, 400),
    ):
        answer = setup(channel, **fields)
        assert answer.status == status
        assert answer.message
    assert found.parts.selection.model == "linear"


def test_extended_inference_takes_and_gives_tensors_of_tensorflow(older, weights):
    _, channel = older
    setup(channel, model_name="linear")
    x = np.ones((1, 4), np.float32)
    answer = extended(channel, {"whatever": x})
    assert answer.id == 9
    np.testing.assert_allclose(from_tensor_proto(answer.output["y"], "y"), x @ weights, rtol=1e-5)
    setup(channel, model_name="two")
    a, b = np.ones((1, 2), np.float32), np.full((1, 2), 4, np.float32)
    answer = extended(channel, {"a": a, "b": b})
    np.testing.assert_array_equal(from_tensor_proto(answer.output["difference"], "d"), a - b)
    with pytest.raises(grpc.RpcError) as caught:
        extended(channel, {"a": a, "c": b})
    assert caught.value.code() == StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("datatype", DTYPES)
def test_tensor_protos_come_back(datatype):
    array = np.array([[b"a", b""]], object) if datatype == "BYTES" else np.array([[1, 0]]).astype(DTYPES[datatype])
    proto = TensorProto()
    fill_tensor_proto(proto, array)
    np.testing.assert_array_equal(from_tensor_proto(TensorProto.FromString(proto.SerializeToString()), "t"), array)


def proto(kind, shape, **fields):
    found = TensorProto(dtype=kind, **fields)
    for size in shape:
        found.tensor_shape.dim.add(size=size)
    return found


def test_values_of_tensor_protos_repeat_the_last_one():
    np.testing.assert_array_equal(from_tensor_proto(proto(1, (3,), float_val=[1, 2]), "t"), [1, 2, 2])
    np.testing.assert_array_equal(from_tensor_proto(proto(19, (2,), half_val=[0x3C00]), "t"), [1, 1])
    assert from_tensor_proto(proto(9, (), int64_val=[5]), "t").shape == ()
    for bad in (
        proto(1, (1,), float_val=[1, 2]),
        proto(1, (1,)),
        proto(8, (1,)),
        proto(1, (-1,)),
        proto(1, (2,), tensor_content=b"abc"),
        proto(7, (1,), tensor_content=b"abc"),
        proto(6, (1,), int_val=[1000]),
        proto(1, (2**40,), float_val=[1]),
        proto(1, (0, 2**62)),
    ):
        with pytest.raises(InvalidTensor):
            from_tensor_proto(bad, "t")


@pytest.mark.slow
def test_tensorflow_reads_and_writes_the_same_bytes():
    program = """
import sys, numpy as np, tensorflow as tf
for array in (np.arange(6, dtype=np.float32).reshape(2, 3), np.float16([1.5]), np.array(7), np.array([[b"a", b"bc"]])):
    print(tf.make_tensor_proto(array).SerializeToString().hex())
sys.stdout.flush()
from tensorflow.core.framework import tensor_pb2
for line in sys.stdin:
    print(tf.make_ndarray(tensor_pb2.TensorProto.FromString(bytes.fromhex(line))).tolist())
"""
    ours = [np.arange(4, dtype=np.int16).reshape(2, 2), np.array([b"x", b""], object), np.array([True])]
    lines = []
    for array in ours:
        written = TensorProto()
        fill_tensor_proto(written, array)
        lines.append(written.SerializeToString().hex())
    done = subprocess.run(
        [sys.executable, "-c", program], input="\n".join(lines), capture_output=True, text=True, check=True, timeout=200
    )
    output = done.stdout.splitlines()
    read = [from_tensor_proto(TensorProto.FromString(bytes.fromhex(line)), "t").tolist() for line in output[:4]]
    assert read == [[[0, 1, 2], [3, 4, 5]], [1.5], 7, [[b"a", b"bc"]]]
    assert output[4:] == ["[[0, 1], [2, 3]]", "[b'x', b'']", "[True]"]


def test_health_is_told_of_the_process_the_service_and_models(start_service):
    with start_service() as found, grpc.insecure_channel(found.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def status(service):
            return stub.Check(health_pb2.HealthCheckRequest(service=service)).status

        good, bad = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        names = ("", "inference.GRPCInferenceService", "linear", "linear/1")
        assert [status(name) for name in names] == [good] * 4
        with pytest.raises(grpc.RpcError) as caught:
            status("absent")
        assert caught.value.code() == StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService"))
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="absent"))
        assert next(watch).status == good
        assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        found.models.is_ready = False
        assert next(watch).status == bad
        found.models.is_ready = True
        assert next(watch).status == good
        found.call(found.server.stop(30))
        assert [each.status for each in watch] == [bad]


def test_reflection_describes_every_service(service):
    with grpc.insecure_channel(service.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)

        def ask(**fields):
            request = reflection_pb2.ServerReflectionRequest(**fields)
            [first] = stub.ServerReflectionInfo(iter([request]))
            same = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
            [second] = same(iter([request.SerializeToString()]))
            assert second == first.SerializeToString()
            return first

        services = [each.name for each in ask(list_services="").list_services_response.service]
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(services)
        for name in services:
            files = ask(file_containing_symbol=name).file_descriptor_response.file_descriptor_proto
            described = [FileDescriptorProto.FromString(each) for each in files]
            assert any(name.rpartition(".")[2] in [each.name for each in file.service] for file in described)
        assert ask(file_containing_symbol="absent").error_response.error_code == StatusCode.NOT_FOUND.value[0]
