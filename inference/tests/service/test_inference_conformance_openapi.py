"""open-inference-openapi, the client that is generated from the protocol's own document."""

from __future__ import annotations

import httpx
import pytest
from open_inference.openapi.client import AsyncOpenInferenceClient, OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.errors import BadRequestError, NotFoundError
from open_inference.openapi.types import InferenceRequest, RequestInput

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")


@pytest.fixture(params=["sync", "async"])
async def ask(request, service):
    """Call a method of either client."""
    if request.param == "sync":
        with httpx.Client() as http:
            client = OpenInferenceClient(base_url=service.url, httpx_client=http)

            async def called(name, *arguments, **named):
                return getattr(client, name)(*arguments, **named)

            yield called
        return
    async with httpx.AsyncClient() as http:
        client = AsyncOpenInferenceClient(base_url=service.url, httpx_client=http)

        async def awaited(name, *arguments, **named):
            return await getattr(client, name)(*arguments, **named)

        yield awaited


def body(values=((0.0, 1.0, 2.0),), datatype="FP32", names=("a", "b")):
    rows = [list(row) for row in values]
    shape = [len(rows), len(rows[0])]
    return InferenceRequest(
        id="7", inputs=[RequestInput(name=name, shape=shape, datatype=datatype, data=rows) for name in names]
    )


async def test_health(ask):
    assert await ask("check_server_liveness") is None
    assert await ask("check_server_readiness") is None
    assert await ask("check_model_readiness", "two") is None
    assert await ask("check_model_version_readiness", "two", "1") is None
    with pytest.raises(NotFoundError):
        await ask("check_model_readiness", "none")


async def test_metadata(ask):
    assert (await ask("read_server_metadata")).name == "locex-inference"
    told = await ask("read_model_metadata", "two")
    assert (told.name, told.platform, [one.name for one in told.inputs]) == ("two", "onnxruntime_onnx", ["a", "b"])
    assert (await ask("read_model_version_metadata", "two", "1")).versions == ["1"]
    with pytest.raises(ApiError) as caught:
        await ask("read_model_metadata", "none")
    assert caught.value.status_code == 404


async def test_inference(ask):
    answer = await ask("model_infer", "two", request=body())
    assert (answer.id, answer.model_name, answer.model_version) == ("7", "two", "2")
    outputs = {one.name: one for one in answer.outputs}
    assert outputs["sum"].shape == [1, 3]
    assert _values(outputs["sum"].data) == [0, 20, 40]
    versioned = await ask("model_version_infer", "two", "1", request=body())
    assert _values({one.name: one for one in versioned.outputs}["sum"].data) == [0, 2, 4]


async def test_errors(ask):
    with pytest.raises(ApiError) as caught:
        await ask("model_infer", "none", request=body())
    assert caught.value.status_code == 404
    with pytest.raises(BadRequestError):
        await ask("model_infer", "two", request=body(names=("a",)))
    with pytest.raises(BadRequestError):
        await ask("model_infer", "two", request=body(datatype="INT32"))


def _values(data):
    return [*getattr(data, "__root__", getattr(data, "root", data))]
