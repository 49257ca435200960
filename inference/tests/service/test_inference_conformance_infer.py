"""Inference as tritonclient's four clients ask for it: types, shapes, forms, compression, classes, and errors."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.full((2, 3), 0.5, np.float32)
VALUES = {
    "BOOL": np.array([[True, False, True]]),
    **{f"{s}INT{b}": np.array([[0, 1, 100]], f"{s.lower()}int{b}") for s in ("", "U") for b in (8, 16, 32, 64)},
    "FP16": np.array([[0.5, -2.25, 65504]], np.float16),
    "FP32": np.array([[0.1, -2.5, 3e38]], np.float32),
    "FP64": np.array([[0.1, -2.5, 1e300]], np.float64),
    "BF16": np.array([[0.5, -2.0, 1024]], ml_dtypes.bfloat16),
    "BYTES": np.array([[b"", b"plain", "Grüße \x00 \N{SNOWMAN}".encode()]], object),
}
BINARY_ONLY = {"FP16", "BF16"}  # JSON has no such numbers: tritonclient refuses to write them


def inputs(client, a=A, b=B, **options):
    return [client.input("a", a, "FP32", **options), client.input("b", b, "FP32", **options)]


@pytest.mark.parametrize("datatype", VALUES)
async def test_every_data_type_comes_back_as_it_went(client, datatype):
    sent = VALUES[datatype]
    answer = await client.infer(
        f"identity-{datatype}", [client.input("x", sent, datatype)], outputs=[client.output("y")]
    )
    received = answer.as_numpy("y")
    assert received.shape == sent.shape
    np.testing.assert_array_equal(received, sent)


@pytest.mark.parametrize("datatype", [name for name in VALUES if name not in BINARY_ONLY])
async def test_every_data_type_in_json(client, datatype):
    if not client.over_http:
        pytest.skip("gRPC has no JSON")
    sent = VALUES[datatype]
    answer = await client.infer(
        f"identity-{datatype}",
        [client.input("x", sent, datatype, binary=False)],
        outputs=[client.output("y", binary=False)],
    )
    received = answer.as_numpy("y")
    if datatype == "BYTES":
        assert [one if isinstance(one, str) else one.decode() for one in received.ravel()] == [
            one.decode() for one in sent.ravel()
        ]
    else:
        np.testing.assert_array_equal(received, sent)


async def test_all_outputs_come_where_none_is_named(client):
    answer = await client.infer("two", inputs(client), model_version="1")
    np.testing.assert_array_equal(answer.as_numpy("sum"), A + B)
    np.testing.assert_array_equal(answer.as_numpy("difference"), A - B)


async def test_only_named_outputs_come(client):
    answer = await client.infer("two", inputs(client), outputs=[client.output("difference")])
    np.testing.assert_array_equal(answer.as_numpy("difference"), A - B)
    assert answer.as_numpy("sum") is None


@pytest.mark.parametrize(("version", "factor"), [("1", 1), ("2", 10), ("latest", 10), ("stable", 10), ("", 10)])
async def test_a_version_or_label_answers(client, version, factor):
    answer = await client.infer("two", inputs(client), model_version=version)
    np.testing.assert_array_equal(answer.as_numpy("sum"), factor * (A + B))
    told = answer.get_response()
    named = told["model_version"] if isinstance(told, dict) else told.model_version
    assert named == ("1" if factor == 1 else "2")


async def test_the_id_comes_back(client):
    told = (await client.infer("two", inputs(client), request_id="my request")).get_response()
    assert (told["id"] if isinstance(told, dict) else told.id) == "my request"


@pytest.mark.parametrize("examples", [1, 17])
async def test_batches_of_any_size(client, examples):
    a = np.random.default_rng(examples).normal(size=(examples, 3)).astype(np.float32)
    answer = await client.infer("two", inputs(client, a, a), model_version="1")
    np.testing.assert_array_equal(answer.as_numpy("sum").reshape(examples, 3), 2 * a)


@pytest.mark.parametrize("count", [1, 2, 9])
async def test_classes(client, count):
    answer = await client.infer("two", inputs(client), outputs=[client.output("sum", class_count=count)])
    found = answer.as_numpy("sum")
    texts = [[one if isinstance(one, str) else one.decode() for one in row] for row in found]
    assert [[int(text.split(":")[1]) for text in row] for row in texts] == [[2, 1, 0][:count]] * 2
    assert [float(row[0].split(":")[0]) for row in texts] == [25, 55]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("way", ["request", "response", "both"])
async def test_compression(client, algorithm, way):
    named = (
        {f"{one}_compression_algorithm": algorithm for one in ("request", "response") if way in {one, "both"}}
        if client.over_http
        else {"compression_algorithm": algorithm}
    )
    a = np.ones((500, 3), np.float32)
    answer = await client.infer("two", inputs(client, a, a), model_version="1", **named)
    np.testing.assert_array_equal(answer.as_numpy("sum"), 2 * a)


async def test_mixed_forms_of_inputs_and_outputs(client):
    if not client.over_http:
        pytest.skip("gRPC has no JSON")
    mixed = [client.input("a", A, "FP32", binary=True), client.input("b", B, "FP32", binary=False)]
    outputs = [client.output("sum", binary=False), client.output("difference", binary=True)]
    answer = await client.infer("two", mixed, outputs=outputs, model_version="1")
    np.testing.assert_array_equal(answer.as_numpy("sum"), A + B)
    np.testing.assert_array_equal(answer.as_numpy("difference"), A - B)


async def test_parameters_and_priority_are_taken(client):
    named = {"priority": 1, "timeout": 10_000_000, "parameters": {"mine": "text", "number": 3, "flag": True}}
    answer = await client.infer("two", inputs(client), model_version="1", **named)
    np.testing.assert_array_equal(answer.as_numpy("sum"), A + B)


async def test_many_requests_at_once(client):
    if "aio" in client.kind:
        import asyncio

        asked = [client.infer("two", inputs(client, A + n, B), model_version="1") for n in range(50)]
        answers = await asyncio.gather(*asked)
    elif client.over_http:
        handles = [client.client.async_infer("two", inputs(client, A + n, B), model_version="1") for n in range(50)]
        answers = [handle.get_result() for handle in handles]
    else:
        import queue

        waiting = queue.Queue()
        for n in range(50):
            taken = lambda result, error, n=n: waiting.put((n, result, error))  # noqa: E731 -- tritonclient calls it so
            client.client.async_infer("two", inputs(client, A + n, B), taken, model_version="1")
        arrived = sorted((waiting.get(timeout=60) for _ in range(50)), key=lambda one: one[0])
        answers = [result for _, result, _ in arrived]
    for n, answer in enumerate(answers):
        np.testing.assert_array_equal(answer.as_numpy("sum"), A + n + B)


BAD = {
    "unknown model": (404, "NOT_FOUND", "none", {}, {}),
    "unknown version": (404, "NOT_FOUND", "two", {"model_version": "7"}, {}),
    "an input missing": (400, "INVALID_ARGUMENT", "two", {}, {"b": None}),
    "an unknown input": (400, "INVALID_ARGUMENT", "two", {}, {"c": (A, "FP32")}),
    "another type": (400, "INVALID_ARGUMENT", "two", {}, {"b": (A.astype(np.int32), "INT32")}),
    "another size": (400, "INVALID_ARGUMENT", "two", {}, {"b": (A[:, :2], "FP32")}),
    "another rank": (400, "INVALID_ARGUMENT", "two", {}, {"b": (A[0], "FP32")}),
    "too many examples": (
        400,
        "INVALID_ARGUMENT",
        "bounded",
        {},
        {n: (np.ones((5, 3), np.float32), "FP32") for n in "ab"},
    ),
    "no example": (400, "INVALID_ARGUMENT", "two", {}, {n: (np.ones((0, 3), np.float32), "FP32") for n in "ab"}),
    "examples that differ": (400, "INVALID_ARGUMENT", "two", {}, {"b": (A[:1], "FP32")}),
}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("fault", BAD)
async def test_bad_requests_are_told_exactly(client, fault, binary):
    if not client.over_http and not binary:
        pytest.skip("gRPC has no JSON")
    status, code, model, named, changes = BAD[fault]
    tensors = {"a": (A, "FP32"), "b": (B, "FP32")} | changes
    given = [client.input(name, *one, binary=binary) for name, one in tensors.items() if one is not None]
    with pytest.raises(InferenceServerException) as caught:
        await client.infer(model, given, **named)
    assert caught.value.status() == (str(status) if client.over_http else f"StatusCode.{code}"), caught.value
    assert caught.value.message()


async def test_an_unknown_output_is_refused(client):
    with pytest.raises(InferenceServerException) as caught:
        await client.infer("two", inputs(client), outputs=[client.output("product")])
    assert caught.value.status() == ("400" if client.over_http else "StatusCode.INVALID_ARGUMENT")
    assert "product" in caught.value.message()
