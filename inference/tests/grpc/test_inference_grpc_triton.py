"""tritonclient's gRPC clients, unchanged, against the server."""

import base64
import json
import queue
import uuid

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, shared_memory


@pytest.fixture
def client(service):
    with triton.InferenceServerClient(service.address) as found:
        yield found


def tensor(name, array, datatype="FP32"):
    found = triton.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


X = np.arange(8, dtype=np.float32).reshape(2, 4)


def test_server_and_models_are_live_and_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", "1")
    assert not client.is_model_ready("absent")
    assert not client.is_model_ready("linear", "7")


def test_metadata_names_server_and_model(client):
    server = client.get_server_metadata()
    assert server.name == "locex-inference"
    assert {"binary_tensor_data", "classification", "system_shared_memory"} <= set(server.extensions)
    model = client.get_model_metadata("linear")
    assert (model.name, list(model.versions), model.platform) == ("linear", ["1"], "python")
    [x], [y] = model.inputs, model.outputs
    assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, 4])
    assert (y.name, y.datatype, list(y.shape)) == ("y", "FP32", [-1, 3])


def test_configuration_has_the_clients_types(client):
    config = client.get_model_config("linear", as_json=True)["config"]
    assert config["name"] == "linear"
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["-1", "4"]}]


def test_a_batch_is_answered_as_by_the_model(client, weights):
    result = client.infer("linear", [tensor("x", X)], request_id="7")
    np.testing.assert_allclose(result.as_numpy("y"), X @ weights, rtol=1e-5)
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("linear", "1", "7")


def test_several_inputs_and_outputs_and_a_choice_of_these(client):
    a, b = np.ones((1, 2), np.float32), np.full((1, 2), 3, np.float32)
    result = client.infer("two", [tensor("a", a), tensor("b", b)])
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
    np.testing.assert_array_equal(result.as_numpy("difference"), a - b)
    chosen = client.infer("two", [tensor("b", b), tensor("a", a)], outputs=[triton.InferRequestedOutput("difference")])
    assert [output.name for output in chosen.get_response().outputs] == ["difference"]
    np.testing.assert_array_equal(chosen.as_numpy("difference"), a - b)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("BOOL", np.array([[True, False]])),
        ("INT8", np.array([[-128, 127]], np.int8)),
        ("INT16", np.array([[-5, 5]], np.int16)),
        ("INT32", np.array([[-5, 5]], np.int32)),
        ("INT64", np.array([[-(2**62), 5]], np.int64)),
        ("UINT8", np.array([[0, 255]], np.uint8)),
        ("UINT16", np.array([[0, 65535]], np.uint16)),
        ("UINT32", np.array([[0, 2**32 - 1]], np.uint32)),
        ("UINT64", np.array([[0, 2**64 - 1]], np.uint64)),
        ("FP16", np.array([[0.5, -2]], np.float16)),
        ("BF16", np.array([[1.5, -3.0]], ml_dtypes.bfloat16)),
        ("FP32", np.array([[0.5, np.inf]], np.float32)),
        ("FP64", np.array([[0.1, -1e300]])),
        ("BYTES", np.array([[b"", b"\x00\xff", "ü".encode()]], object)),
    ],
)
def test_every_type_comes_back_as_it_went(client, datatype, values):
    result = client.infer(f"echo-{datatype}", [tensor("x", values, datatype)])
    np.testing.assert_array_equal(result.as_numpy("y"), values)
    assert result.get_output("y").datatype == datatype


def test_classes_come_best_first(client, weights):
    result = client.infer("linear", [tensor("x", X)], outputs=[triton.InferRequestedOutput("y", class_count=2)])
    classes = result.as_numpy("y")
    assert classes.shape == (2, 2)
    expected = X @ weights
    for row, found in zip(expected, classes, strict=True):
        values, indices = zip(*(text.decode().split(":") for text in found), strict=True)
        assert [int(index) for index in indices] == list(np.argsort(-row)[:2])
        np.testing.assert_allclose([float(value) for value in values], np.sort(row)[::-1][:2], atol=1e-4)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_taken(client, algorithm):
    zeros = np.zeros((64, 64), np.float32)
    result = client.infer("echo-FP32", [tensor("x", zeros)], compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("y"), zeros)


def test_large_tensors_pass_the_default_limit_of_grpc(client):
    values = np.random.default_rng(1).normal(size=(1024, 2048)).astype(np.float32)  # 8 MiB
    result = client.infer("echo-FP32", [tensor("x", values)])
    np.testing.assert_array_equal(result.as_numpy("y"), values)


def test_tensors_in_shared_memory(client, weights):
    key = f"/locex-{uuid.uuid4().hex}"
    region = shared_memory.create_shared_memory_region("region", key, X.nbytes + 24)
    try:
        shared_memory.set_shared_memory_region(region, [X])
        client.register_system_shared_memory("region", key, X.nbytes + 24)
        assert client.get_system_shared_memory_status().regions["region"].byte_size == X.nbytes + 24
        x = triton.InferInput("x", [2, 4], "FP32")
        x.set_shared_memory("region", X.nbytes)
        y = triton.InferRequestedOutput("y")
        y.set_shared_memory("region", 24, offset=X.nbytes)
        result = client.infer("linear", [x], outputs=[y])
        assert not result.get_response().raw_output_contents
        found = shared_memory.get_contents_as_numpy(region, np.float32, [2, 3], offset=X.nbytes)
        np.testing.assert_allclose(found.copy(), X @ weights, rtol=1e-5)
        del found
        client.unregister_system_shared_memory("region")
        with pytest.raises(InferenceServerException, match="region") as caught:
            client.infer("linear", [x])
        assert caught.value.status() == "StatusCode.NOT_FOUND"
    finally:
        shared_memory.destroy_shared_memory_region(region)


def test_cuda_shared_memory_is_refused_cleanly(client):
    assert not client.get_cuda_shared_memory_status().regions
    with pytest.raises(InferenceServerException, match="CUDA") as caught:
        client.register_cuda_shared_memory("region", base64.b64encode(bytes(64)), 0, 64)
    assert caught.value.status() == "StatusCode.PERMISSION_DENIED"
    client.unregister_cuda_shared_memory()


def test_the_repository_is_listed_loaded_and_unloaded(client, linear_onnx, weights):
    client.load_model("fresh", config=json.dumps({"max_batch_size": 4}), files={"file:2/model.onnx": linear_onnx(2)})
    entries = {(entry.name, entry.version): entry.state for entry in client.get_model_repository_index().models}
    assert entries["fresh", "2"] == "READY"
    np.testing.assert_allclose(client.infer("fresh", [tensor("x", X)]).as_numpy("y"), 2 * X @ weights, rtol=1e-5)
    client.unload_model("fresh")
    with pytest.raises(InferenceServerException) as caught:
        client.infer("fresh", [tensor("x", X)])
    assert caught.value.status() in {"StatusCode.NOT_FOUND", "StatusCode.UNAVAILABLE"}
    corrupt = {"file:1/model.onnx": b"no model"}
    for model, files, status in (("corrupt", corrupt, "INVALID_ARGUMENT"), ("absent", {}, "NOT_FOUND")):
        with pytest.raises(InferenceServerException) as caught:
            client.load_model(model, config="{}", files=files or None)
        assert caught.value.status() == f"StatusCode.{status}"
    with pytest.raises(InferenceServerException, match="config") as caught:
        client.load_model("linear", config="[]")
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_statistics_count_what_was_answered(client):
    before = client.get_inference_statistics("two").model_stats[0].inference_stats.success.count
    values = np.ones((3, 2), np.float32)
    client.infer("two", [tensor("a", values), tensor("b", values)])
    [stats] = client.get_inference_statistics("two", "1").model_stats
    assert stats.inference_stats.success.count == before + 1
    assert stats.batch_stats[-1].batch_size == 3
    assert len(client.get_inference_statistics().model_stats) > 10


def test_trace_and_log_settings_are_read_and_changed(client):
    assert client.get_trace_settings(as_json=True)["settings"]["trace_level"]["value"] == ["OFF"]
    changed = client.update_trace_settings("linear", {"trace_level": ["TIMESTAMPS"], "trace_rate": "5"}, as_json=True)
    assert changed["settings"]["trace_rate"]["value"] == ["5"]
    assert client.get_trace_settings("two", as_json=True)["settings"]["trace_rate"]["value"] == ["1000"]
    cleared = client.update_trace_settings("linear", {"trace_rate": None, "trace_level": None}, as_json=True)
    assert cleared["settings"]["trace_rate"]["value"] == ["1000"]
    assert client.update_log_settings({"log_verbose_level": 1}).settings["log_verbose_level"].uint32_param == 1
    assert client.get_log_settings().settings["log_verbose_level"].uint32_param == 1
    client.update_log_settings({"log_verbose_level": 0, "log_info": True})
    with pytest.raises(InferenceServerException) as caught:
        client.update_log_settings({"log_file": "/etc/passwd"})
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_stream_answers_in_order_and_tells_errors_in_it(client):
    replies = queue.Queue()
    client.start_stream(lambda result, error: replies.put((result, error)))
    for index in range(20):
        model = "absent" if index == 7 else "linear"
        client.async_stream_infer(model, [tensor("x", X + index)], request_id=str(index))
    for index in range(20):
        result, error = replies.get(timeout=30)
        if index == 7:
            assert "absent" in str(error)
        else:
            assert error is None
            assert result.get_response().id == str(index)
            assert "triton_final_response" not in result.get_response().parameters
    client.async_stream_infer("linear", [tensor("x", X)], enable_empty_final_response=True)
    assert replies.get(timeout=30)[0].get_response().parameters["triton_final_response"].bool_param
    client.stop_stream()


async def test_the_asyncio_client_infers_and_streams(service, weights):
    async with triton_aio.InferenceServerClient(service.address) as client:
        assert await client.is_server_ready()
        result = await client.infer("linear", [tensor("x", X)])
        np.testing.assert_allclose(result.as_numpy("y"), X @ weights, rtol=1e-5)

        async def requests():
            for index in range(5):
                yield {"model_name": "linear", "inputs": [tensor("x", X)], "request_id": str(index)}

        ids = [result.get_response().id async for result, error in client.stream_infer(requests()) if error is None]
        assert ids == ["0", "1", "2", "3", "4"]
