"""From a typed route to an aiohttp handler: reads what the handler takes, writes what it returns."""

from __future__ import annotations

from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from locex.errors import InvalidConfiguration
from locex.schemas.base import Configuration, validate
from locex.web.problems import InvalidRequest, MalformedBody, UnsupportedMedia
from locex.web.routes import Route
from locex.web.strict_json import parse_json


def endpoint(route: Route) -> Handler:
    """Return the aiohttp handler of a route."""
    parameters = {name: TypeAdapter[Any](kind) for name, kind in route.parameters.items()}
    query = route.options.get("query")
    takes_body = "body" in route.options

    async def respond(request: web.Request) -> web.StreamResponse:
        arguments = _path(request, parameters)
        if query is not None:
            arguments["query"] = _query(request, query)
        if takes_body:
            arguments["body"] = await _body(request, route.options["body"])
        return _response(route, await route.handler(request, **arguments))

    return respond


def json_response(content: Any, *, status: int = 200) -> web.Response:
    """Return pydantic models and JSON values as a response; numbers that are not finite are null."""
    body = to_json(content, by_alias=True, inf_nan_mode="null")
    return web.Response(body=body, status=status, content_type="application/json")


def _path(request: web.Request, parameters: dict[str, TypeAdapter[Any]]) -> dict[str, Any]:
    values, faults = {}, []
    for name, adapter in parameters.items():
        try:
            values[name] = adapter.validate_python(request.match_info[name])
        except ValidationError as error:
            faults.append({"path": f"/{name}", "message": error.errors(include_url=False)[0]["msg"]})
    if faults:
        listing = "; ".join(f"{fault['path'][1:]}: {fault['message']}" for fault in faults)
        raise InvalidRequest(f"the path is invalid: {listing}", remedy="correct the path", errors=faults)
    return values


def _query(request: web.Request, model: type[Configuration]) -> Configuration:
    given: dict[str, Any] = {}
    for key in request.query:
        values = request.query.getall(key)
        given[key] = values if len(values) > 1 else values[0]
    try:
        return validate(model, given)
    except InvalidConfiguration as error:
        message = error.message.replace("the configuration", "the query", 1)
        raise InvalidRequest(message, remedy="correct the query", errors=error.errors) from None


async def _body(request: web.Request, model: Any) -> Any:
    if hdrs.CONTENT_TYPE in request.headers and not _is_json(request.content_type):
        raise UnsupportedMedia(
            f"a body of type {request.content_type} is not taken here", remedy="send application/json"
        )
    raw = await request.read()
    if not raw:
        raise MalformedBody("the body is missing", remedy="send a JSON value")
    content = parse_json(raw)
    if model is not dict:
        return validate(model, content)
    if not isinstance(content, dict):
        raise MalformedBody("the body is not a JSON object", remedy="send a JSON object")
    return content


def _is_json(content_type: str) -> bool:
    return content_type.endswith(("/json", "+json"))


def _response(route: Route, result: Any) -> web.StreamResponse:
    if isinstance(result, web.StreamResponse):
        return result
    if "response" not in route.options:
        return web.Response(status=route.status)
    return json_response(result, status=route.status)
