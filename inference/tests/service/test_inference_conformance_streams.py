"""Streams of requests over gRPC, as tritonclient's two clients send them."""

from __future__ import annotations

import queue

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio

A = np.arange(6, dtype=np.float32).reshape(2, 3)


def inputs(n):
    made = []
    for name in ("a", "b"):
        tensor = triton_grpc.InferInput(name, [2, 3], "FP32")
        tensor.set_data_from_numpy(A + n)
        made.append(tensor)
    return made


def test_a_stream_answers_every_request_and_tells_errors_without_ending(service):
    arrived = queue.Queue()
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{service.grpc}") as client:
        client.start_stream(lambda result, error: arrived.put((result, error)))
        for n in range(10):
            client.async_stream_infer("two", inputs(n), request_id=str(n), model_version="1")
        client.async_stream_infer("none", inputs(0))
        client.async_stream_infer("two", inputs(10), request_id="10", model_version="1")
        answers = [arrived.get(timeout=60) for _ in range(12)]
        client.stop_stream()
    faults = [error for _, error in answers if error is not None]
    assert len(faults) == 1
    assert "none" in faults[0].message()
    found = {result.get_response().id: result.as_numpy("sum") for result, error in answers if error is None}
    assert sorted(found, key=int) == [str(n) for n in range(11)]
    for n, array in found.items():
        np.testing.assert_array_equal(array, 2 * (A + int(n)))


async def test_a_stream_of_the_asynchronous_client(service):
    async def asked():
        for n in range(5):
            yield {"model_name": "two", "inputs": inputs(n), "request_id": str(n), "model_version": "1"}

    async with triton_grpc_aio.InferenceServerClient(f"127.0.0.1:{service.grpc}") as client:
        found = {}
        async for result, error in client.stream_infer(asked()):
            assert error is None
            found[result.get_response().id] = result.as_numpy("sum")
    assert len(found) == 5
    for n, array in found.items():
        np.testing.assert_array_equal(array, 2 * (A + int(n)))
