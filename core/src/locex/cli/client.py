"""What commands need of a service's REST API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import click

_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)


@dataclass(frozen=True)
class Client:
    """A service by its URL; a problem that it answers becomes a `click.ClickException` with the remedy."""

    url: str
    token_file: Path | None = None
    session: aiohttp.ClientSession = field(init=False, repr=False)

    async def __aenter__(self) -> Self:
        headers = {}
        if self.token_file:
            headers["Authorization"] = f"Bearer {_first_token(self.token_file)}"
        base = self.url if "://" in self.url else f"http://{self.url}"
        session = aiohttp.ClientSession(base.rstrip("/") + "/", headers=headers, timeout=_TIMEOUT)
        object.__setattr__(self, "session", session)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.session.close()

    async def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Return the JSON answer, or None where there is none."""
        try:
            async with self.session.request(method, path, **arguments) as response:
                answer = await self._answer(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise click.ClickException(f"{self.url} does not answer: {error}") from None
        if response.ok:
            return answer
        raise click.ClickException(explain(answer))

    async def events(self, path: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield server-sent events as kind and content."""
        try:
            async with self.session.get(path) as response:
                if not response.ok:
                    raise click.ClickException(explain(await self._answer(response)))
                kind = ""
                async for line in response.content:
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data":
                        yield kind, json.loads(value)["content"]
        except (aiohttp.ClientError, TimeoutError) as error:
            raise click.ClickException(f"{self.url} does not answer any more: {error}") from None

    async def _answer(self, response: aiohttp.ClientResponse) -> Any:
        content = await response.read()
        try:
            return json.loads(content) if content else None
        except ValueError:
            raise click.ClickException(
                f"{self.url} is no service of locex: it answered {response.status} with {response.content_type}"
            ) from None


def _first_token(path: Path) -> str:
    """Return the first token of a file like the service's own: ``scope:token`` or a bare token in a line."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"the token file {path} cannot be read: {error}") from None
    tokens = [line for line in lines if line and not line.startswith("#")]
    if not tokens:
        raise click.ClickException(f"the token file {path} holds no token")
    scope, separator, token = tokens[0].partition(":")
    return token.strip() if separator else scope


def explain(problem: Any) -> str:
    """Return a problem as text for people: what, where, remedy."""
    if not isinstance(problem, dict):
        return f"the service answered {problem!r}"
    lines = [str(problem.get("detail", problem))]
    lines += [f"  {fault.get('path', '')}: {fault.get('message', '')}" for fault in problem.get("errors", ())]
    if problem.get("remedy"):
        lines.append(f"  remedy: {problem['remedy']}")
    return "\n".join(lines)
