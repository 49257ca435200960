"""Tensors in system shared memory, in and out, as tritonclient's four clients use it."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import pytest
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

A = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
async def region(client):
    """A region of 96 bytes, registered under a name of its own."""
    key = f"/locex-test-{os.getpid()}-{client.kind}"
    name = f"region-{client.kind}"
    handle = shm.create_shared_memory_region(name, key, 96)
    await client.ask("register_system_shared_memory", name, key, 96)
    yield name, handle
    with contextlib.suppress(InferenceServerException):
        await client.ask("unregister_system_shared_memory", name)
    shm.destroy_shared_memory_region(handle)


def status(answer):
    return {one["name"]: one for one in (answer if isinstance(answer, list) else answer.get("regions", {}).values())}


async def test_regions_are_registered_told_and_unregistered(client, region):
    name, _ = region
    told = status(await client.ask("get_system_shared_memory_status"))[name]
    assert int(told["byte_size"]) == 96
    assert told["key"].endswith(client.kind)
    await client.ask("unregister_system_shared_memory", name)
    assert name not in status(await client.ask("get_system_shared_memory_status"))


async def test_tensors_go_both_ways_through_shared_memory(client, region):
    name, handle = region
    shm.set_shared_memory_region(handle, [A, A + 1])
    inputs = []
    for number, tensor in enumerate(("a", "b")):
        one = client.module.InferInput(tensor, [2, 3], "FP32")
        one.set_shared_memory(name, 24, offset=24 * number)
        inputs.append(one)
    outputs = []
    for number, tensor in enumerate(("sum", "difference")):
        one = client.output(tensor)
        one.set_shared_memory(name, 24, offset=48 + 24 * number)
        outputs.append(one)
    answer = await client.infer("two", inputs, outputs=outputs, model_version="1")
    np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [2, 3], 48), 2 * A + 1)
    np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [2, 3], 72), -np.ones((2, 3)))
    told = answer.get_output("sum")
    assert told is not None


async def test_an_output_that_does_not_fit_is_refused(client, region):
    name, _ = region
    output = client.output("sum")
    output.set_shared_memory(name, 8)
    tensors = [client.input(tensor, A, "FP32") for tensor in ("a", "b")]
    with pytest.raises(InferenceServerException) as caught:
        await client.infer("two", tensors, outputs=[output])
    assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}


@pytest.mark.parametrize(("size", "offset"), [(24, 90), (200, 0)])
async def test_an_input_beyond_its_region_is_refused(client, region, size, offset):
    name, _ = region
    tensor = client.module.InferInput("a", [2, 3], "FP32")
    tensor.set_shared_memory(name, size, offset=offset)
    with pytest.raises(InferenceServerException) as caught:
        await client.infer("two", [tensor, client.input("b", A, "FP32")])
    assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}


async def test_what_is_not_there_is_refused(client):
    for key in ("/locex-nowhere", "/../etc/passwd"):
        with pytest.raises(InferenceServerException) as caught:
            await client.ask("register_system_shared_memory", "gone", key, 8)
        assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}
    tensor = client.module.InferInput("a", [2, 3], "FP32")
    tensor.set_shared_memory("gone", 24)
    with pytest.raises(InferenceServerException) as caught:
        await client.infer("two", [tensor, client.input("b", A, "FP32")])
    assert caught.value.status() in {"400", "404", "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND"}


async def test_cuda_memory_is_a_clean_error(client):
    with pytest.raises(InferenceServerException) as caught:
        await client.ask("register_cuda_shared_memory", "gpu", b"aGFuZGxl", 0, 8)
    assert caught.value.status() in {"400", "403", "StatusCode.INVALID_ARGUMENT", "StatusCode.PERMISSION_DENIED"}
    assert "CUDA" in caught.value.message()
