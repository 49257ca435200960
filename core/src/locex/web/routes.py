"""Typed routes: what a handler takes and gives, said once for validation and for the OpenAPI document.

::

    routes = Routes()

    @routes.get("/job/{training_id}", tag="jobs", scope=Scope.READ, response=JobRecord, errors=(UnknownJob,))
    async def get_job(request: web.Request, training_id: str) -> JobRecord:
        '''Return the newest run of a training.'''
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, TypedDict, TypeVar, Unpack

from pydantic import BaseModel

from locex.errors import LocexError
from locex.schemas.base import Configuration
from locex.schemas.model import Name

TypedHandler = Callable[..., Awaitable[Any]]
HandlerT = TypeVar("HandlerT", bound=TypedHandler)


class Scope(IntEnum):
    """What a token allows; each includes those below."""

    READ = 1
    RUN = 2
    ADMIN = 3


class RouteOptions(TypedDict, total=False):
    """What a route says of itself; every key may be absent.

    A handler gets the request, every path parameter by name, ``query`` and ``body`` where the route has them. It
    returns a pydantic model, JSON values, a `web.StreamResponse` (passed on as it is) or None (no content).
    """

    tag: str
    """The heading in the documentation."""
    scope: Scope | None
    """The scope that callers need; absent: `Scope.READ`; None: open to everybody."""
    parameters: Mapping[str, Any]
    """Types of path parameters; those not named are `locex.schemas.model.Name`."""
    query: type[Configuration]
    """The query; repeated keys are lists, unknown keys are refused."""
    body: type[BaseModel | dict[str, Any]]
    """The JSON body; ``dict``: any JSON object, unvalidated."""
    body_schema: Mapping[str, Any]
    """The documented schema of a ``dict`` body, e.g. a reference that an `Extension` fills."""
    consumes: Mapping[str, Mapping[str, Any]]
    """Schemas by media type, for a body that the handler reads itself (`locex.web.upload`)."""
    response: Any
    """The type of the JSON answer. Routes with one answer HEAD too."""
    produces: str
    """The media type of an answer that is not JSON."""
    status: int
    """The status of success; absent: 200, or 204 with neither ``response`` nor ``produces``."""
    errors: tuple[type[LocexError], ...]
    """The errors to document, beside those that every such route can have."""
    statuses: Mapping[str, int]
    """HTTP statuses by error code, where they differ on this route from `locex.web.problems.STATUS`."""
    hidden: bool
    """Whether the route is left out of the documentation."""


@dataclass(frozen=True, eq=False)
class Route:
    """One documented path and method with its handler."""

    method: str
    path: str
    handler: TypedHandler
    options: RouteOptions

    @property
    def scope(self) -> Scope | None:
        """The scope that callers need."""
        return self.options.get("scope", Scope.READ)

    @property
    def status(self) -> int:
        """The status of success."""
        has_content = "response" in self.options or "produces" in self.options
        return self.options.get("status", 200 if has_content else 204)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Types of the path parameters, in order."""
        given = self.options.get("parameters", {})
        return {name: given.get(name, Name) for name in re.findall(r"{(\w+)}", self.path)}

    @property
    def summary(self) -> str:
        """The first line of the handler's docstring."""
        return (inspect.getdoc(self.handler) or "").split("\n", 1)[0]

    @property
    def description(self) -> str:
        """The rest of the handler's docstring."""
        return (inspect.getdoc(self.handler) or "").partition("\n")[2].strip()

    @property
    def spellings(self) -> tuple[str, ...]:
        """The path with and without the slash at its end; only the given one is documented."""
        bare = self.path.rstrip("/")
        return (bare, f"{bare}/") if bare else ("/",)


class Routes:
    """A set of routes, filled by decorators."""

    def __init__(self) -> None:
        self._routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[HandlerT], HandlerT]:
        """Decorate the handler of GET."""
        return self._decorator("GET", path, options)

    def post(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[HandlerT], HandlerT]:
        """Decorate the handler of POST."""
        return self._decorator("POST", path, options)

    def put(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[HandlerT], HandlerT]:
        """Decorate the handler of PUT."""
        return self._decorator("PUT", path, options)

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[HandlerT], HandlerT]:
        """Decorate the handler of DELETE."""
        return self._decorator("DELETE", path, options)

    def _decorator(self, method: str, path: str, options: RouteOptions) -> Callable[[HandlerT], HandlerT]:
        def decorate(handler: HandlerT) -> HandlerT:
            self._routes.append(Route(method, path, handler, options))
            return handler

        return decorate
