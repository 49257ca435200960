"""Cases for KServe's inference clients, run in an environment of their own: ``kserve_client.py HTTP GRPC``.

Prints what failed of each case as JSON; an empty text: it passed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

A = np.arange(6, dtype=np.float32).reshape(2, 3)
TYPES = {
    "BOOL": np.array([[True, False]]),
    "INT8": np.array([[-1, 7]], np.int8),
    "INT16": np.array([[-1, 7]], np.int16),
    "INT32": np.array([[-1, 7]], np.int32),
    "INT64": np.array([[-1, 7]], np.int64),
    "UINT8": np.array([[1, 7]], np.uint8),
    "UINT16": np.array([[1, 7]], np.uint16),
    "UINT32": np.array([[1, 7]], np.uint32),
    "UINT64": np.array([[1, 7]], np.uint64),
    "FP16": np.array([[0.5, 7]], np.float16),
    "FP32": np.array([[0.5, 7]], np.float32),
    "FP64": np.array([[0.5, 7]], np.float64),
    "BYTES": np.array([[b"plain", "Grüße".encode()]], object),
}
JSON_HAS_NOT = {"FP16", "BYTES"}  # KServe's client writes them in binary only
CASES = {}


def case(*parameters):
    def decorate(function):
        for parameter in parameters or [()]:
            CASES[" ".join([function.__name__, *map(str, parameter)])] = (function, parameter)
        return function

    return decorate


def request(model, tensors, *, binary, version=None, outputs=None, **named):
    inputs = []
    for name, (array, datatype) in tensors.items():
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    return InferRequest(model, inputs, request_id="7", model_version=version, request_outputs=outputs, **named)


def both(a=A, b=A):
    return {"a": (a, "FP32"), "b": (b, "FP32")}


@case()
async def rest_health(rest, url, _grpc):
    assert await rest.is_server_live(url)
    assert await rest.is_server_ready(url)
    assert await rest.is_model_ready(url, "two")
    assert not await rest.is_model_ready(url, "none")


@case((True,), (False,))
async def rest_infer(rest, url, _grpc, binary):
    answer = await rest.infer(url, request("two", both(), binary=binary), model_name="two")
    outputs = {one.name: one.as_numpy() for one in answer.outputs}
    np.testing.assert_array_equal(outputs["sum"].reshape(2, 3), 20 * A)
    np.testing.assert_array_equal(outputs["difference"].reshape(2, 3), 0 * A)
    assert (answer.id, answer.model_name) == ("7", "two")  # over REST this client does not read the version


@case()
async def rest_binary_outputs(rest, url, _grpc):
    outputs = [RequestedOutput("sum", {"binary_data": True})]
    answer = await rest.infer(url, request("two", both(), binary=True, outputs=outputs), model_name="two")
    (only,) = answer.outputs
    np.testing.assert_array_equal(only.as_numpy().reshape(2, 3), 20 * A)


@case()
async def rest_all_outputs_binary(rest, url, _grpc):
    asked = request("two", both(), binary=True, parameters={"binary_data_output": True})
    answer = await rest.infer(url, asked, model_name="two")
    outputs = {one.name: one.as_numpy() for one in answer.outputs}
    np.testing.assert_array_equal(outputs["sum"].reshape(2, 3), 20 * A)


@case()
async def rest_a_plain_dictionary(rest, url, _grpc):
    tensors = [{"name": n, "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]} for n in "ab"]
    answer = await rest.infer(url, {"inputs": tensors}, model_name="two")
    found = (
        {one.name: one.data for one in answer.outputs}
        if hasattr(answer, "outputs")
        else {one["name"]: one["data"] for one in answer["outputs"]}
    )
    assert [*found["sum"]] == [20, 40, 60]


@case(*[(name, True) for name in TYPES], *[(name, False) for name in TYPES if name not in JSON_HAS_NOT])
async def rest_type(rest, url, _grpc, datatype, binary):
    sent = TYPES[datatype]
    outputs = [RequestedOutput("y", {"binary_data": binary})]
    model = f"identity-{datatype}"
    asked = request(model, {"x": (sent, datatype)}, binary=binary, outputs=outputs)
    (output,) = (await rest.infer(url, asked, model_name=model)).outputs
    received = output.as_numpy().reshape(sent.shape)
    if datatype == "BYTES":  # this client reads texts
        sent = np.array([[one.decode() for one in row] for row in sent], object)
    np.testing.assert_array_equal(received, sent)


@case(("none", both()), ("two", {"a": (A, "FP32")}))
async def rest_errors(rest, url, _grpc, model, tensors):
    try:
        await rest.infer(url, request(model, tensors, binary=False), model_name=model)
    except Exception as error:
        assert ("404" if model == "none" else "400") in str(error), error
    else:
        raise AssertionError("no error came")


@case()
async def grpc_health(_rest, _url, grpc):
    assert await grpc.is_server_live()
    assert await grpc.is_server_ready()
    assert await grpc.is_model_ready("two")


@case((True,), (False,))
async def grpc_infer(_rest, _url, grpc, raw):
    answer = await grpc.infer(request("two", both(), binary=raw))
    outputs = {one.name: one.as_numpy() for one in answer.outputs}
    np.testing.assert_array_equal(outputs["sum"].reshape(2, 3), 20 * A)
    assert answer.model_version == "2"


@case(*[(name, True) for name in TYPES], *[(name, False) for name in TYPES if name != "FP16"])
async def grpc_type(_rest, _url, grpc, datatype, raw):
    sent = TYPES[datatype]
    answer = await grpc.infer(request(f"identity-{datatype}", {"x": (sent, datatype)}, binary=raw))
    np.testing.assert_array_equal(answer.outputs[0].as_numpy().reshape(sent.shape), sent)


@case(("none", both(), "NOT_FOUND"), ("two", {"a": (A, "FP32")}, "INVALID_ARGUMENT"))
async def grpc_errors(_rest, _url, grpc, model, tensors, code):
    try:
        await grpc.infer(request(model, tensors, binary=True))
    except Exception as error:
        assert code in str(error), error
    else:
        raise AssertionError("no error came")


async def main(http_port, grpc_port):
    found = {}
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    async with InferenceGRPCClient(f"127.0.0.1:{grpc_port}") as grpc:
        for name, (function, parameters) in CASES.items():
            try:
                await function(rest, f"http://127.0.0.1:{http_port}", grpc, *parameters)
                found[name] = ""
            except Exception:
                found[name] = traceback.format_exc()
    await rest.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
