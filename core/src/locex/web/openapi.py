"""The OpenAPI 3.1 document of typed routes."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from typing import Any, Protocol

from aiohttp import web
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema, to_json

from locex.schemas.base import TolerantJsonSchema
from locex.web.problems import CONTENT_TYPE, status_of
from locex.web.routes import Route, Routes

REFERENCE = "#/components/schemas/{model}"

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "code", "remedy", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Names the kind of problem."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong."},
        "code": {"type": "string", "description": "Stable; programs may rely on it."},
        "remedy": {"type": "string", "description": "What to do about it."},
        "instance": {"type": "string", "description": "The path, or the id under which the log tells more."},
        "errors": {
            "type": "array",
            "description": "Faults by field.",
            "items": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "JSON pointer into what was sent."},
                    "message": {"type": "string"},
                },
            },
        },
    },
}


class Extension(Protocol):
    """What a service adds to the document when it is asked for, e.g. schemas of installed plugins."""

    async def key(self) -> Hashable:
        """Return what the document depends on; it is made anew when this changes."""

    async def extend(self, document: dict[str, Any]) -> None:
        """Change the document in place."""


class Document:
    """The document as bytes, kept while the extension's key stays."""

    def __init__(self, routes: Iterable[Route], info: dict[str, Any], extension: Extension | None) -> None:
        self._routes = [route for route in routes if not route.options.get("hidden", False)]
        self._info = info
        self._extension = extension
        self._kept: tuple[Hashable, bytes] | None = None
        self._making = asyncio.Lock()

    async def read(self) -> bytes:
        """Return the document as JSON."""
        async with self._making:
            key = await self._extension.key() if self._extension else None
            if self._kept is None or self._kept[0] != key:
                document = build(self._routes, self._info)
                if self._extension:
                    await self._extension.extend(document)
                self._kept = (key, to_json(document))
            return self._kept[1]


DOCUMENT: web.AppKey[Document] = web.AppKey("document", Document)

routes = Routes()


@routes.get("/openapi.json", tag="service", response=dict[str, Any])
async def get_openapi(request: web.Request) -> web.Response:
    """Return this document."""
    return web.Response(body=await request.app[DOCUMENT].read(), content_type="application/json")


class _Schema(TolerantJsonSchema):
    """Tolerant for what users send, exact for what they get."""

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        parent = GenerateJsonSchema if self.mode == "serialization" else TolerantJsonSchema
        return parent.int_schema(self, schema)

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        if self.mode == "serialization":
            return {"anyOf": [GenerateJsonSchema.float_schema(self, schema), {"type": "null"}]}  # NaN is sent as null
        return super().float_schema(schema)

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        parent = GenerateJsonSchema if self.mode == "serialization" else TolerantJsonSchema
        return parent.bool_schema(self, schema)


def build(routes: Iterable[Route], info: dict[str, Any]) -> dict[str, Any]:
    """Return the document of ``routes``; ``info``: title, version, description."""
    routes = list(routes)
    schemas, components = _schemas(routes)
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas, components)
    return {
        "openapi": "3.1.0",
        "info": info,
        "paths": paths,
        "components": {
            "schemas": components | {"Problem": PROBLEM},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the service's token file. Scopes: read < run < admin.",
                }
            },
        },
    }


_Schemas = dict[tuple[Route, JsonSchemaMode], dict[str, Any]]


def _schemas(routes: list[Route]) -> tuple[_Schemas, dict[str, Any]]:
    inputs: list[tuple[Route, JsonSchemaMode, TypeAdapter[Any]]] = []
    for route in routes:
        body = route.options.get("body", dict)
        if isinstance(body, type) and issubclass(body, BaseModel):
            inputs.append((route, "validation", TypeAdapter(body)))
        if "response" in route.options:
            inputs.append((route, "serialization", TypeAdapter(route.options["response"])))
    schemas, definitions = TypeAdapter.json_schemas(inputs, ref_template=REFERENCE, schema_generator=_Schema)
    return schemas, definitions.get("$defs", {})


def _operation(route: Route, schemas: _Schemas, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "tags": [route.options.get("tag", "service")],
        "parameters": [*_path_parameters(route), *_query_parameters(route, components)],
        "responses": {str(route.status): _success(route, schemas)} | _problems(route),
        "security": [] if route.scope is None else [{"bearer": [route.scope.name.lower()]}],
    }
    if route.description:
        operation["description"] = route.description
    if content := _consumed(route, schemas):
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": TypeAdapter(kind).json_schema()}
        for name, kind in route.parameters.items()
    ]


def _query_parameters(route: Route, components: dict[str, Any]) -> list[dict[str, Any]]:
    model = route.options.get("query")
    if model is None:
        return []
    schema = model.model_json_schema(ref_template=REFERENCE)
    for name, definition in schema.pop("$defs", {}).items():
        components.setdefault(name, definition)
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": content.pop("description", ""),
            "schema": content,
        }
        for name, content in schema.get("properties", {}).items()
    ]


def _consumed(route: Route, schemas: _Schemas) -> dict[str, Any]:
    if "consumes" in route.options:
        return {media: {"schema": schema} if schema else {} for media, schema in route.options["consumes"].items()}
    if "body" not in route.options:
        return {}
    general = route.options.get("body_schema", {"type": "object"})
    return {"application/json": {"schema": schemas.get((route, "validation"), general)}}


def _success(route: Route, schemas: _Schemas) -> dict[str, Any]:
    if "response" in route.options:
        return {
            "description": "Done.",
            "content": {"application/json": {"schema": schemas[route, "serialization"]}},
        }
    if "produces" in route.options:
        return {"description": "Done.", "content": {route.options["produces"]: {}}}
    return {"description": "Done; no content."}


def _problems(route: Route) -> dict[str, Any]:
    statuses = route.options.get("statuses", {})
    codes: dict[int, list[str]] = {}
    for code in sorted(_codes(route)):
        codes.setdefault(status_of(code, statuses), []).append(code)
    return {
        str(status): {
            "description": "Problem: " + ", ".join(listed) + ".",
            "content": {
                CONTENT_TYPE: {
                    "schema": {
                        "allOf": [
                            {"$ref": "#/components/schemas/Problem"},
                            {"properties": {"code": {"enum": listed}}},
                        ]
                    }
                }
            },
        }
        for status, listed in sorted(codes.items())
    }


def _codes(route: Route) -> set[str]:
    codes = {error.code for error in route.options.get("errors", ())} | {"internal"}
    if route.scope is not None:
        codes |= {"unauthorized", "forbidden"}
    if route.parameters or "query" in route.options:
        codes.add("request-invalid")
    if "body" in route.options or "consumes" in route.options:
        codes |= {"body-malformed", "media-type-unsupported", "too-large"}
    if route.options.get("body", dict) is not dict:
        codes.add("configuration-invalid")
    return codes
