"""A node or FL Repository over REST: asked for its models, and for their bytes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs

from locex.errors import InvalidConfiguration
from locex.settings import read_secret
from locex_inference.following.errors import PeerFailed
from locex_inference.following.offers import Listed, Offer, listed_in

_ASK = aiohttp.ClientTimeout(total=30, connect=5)
_DOWNLOAD = aiohttp.ClientTimeout(total=None, connect=5, sock_read=60)
_LISTING_BYTES = 32 * 2**20
_RECORD_BYTES = 16 * 2**20
_CHUNK = 2**20


class Peer:
    """One service. Whatever it does wrong is a `PeerFailed`."""

    def __init__(self, url: str, *, token: str | None, ca: Path | None, max_bytes: int) -> None:
        """``max_bytes`` bounds one download."""
        self.url = url
        self._token = token
        self._tls = _trusting(ca) if ca is not None else None
        self._max_bytes = max_bytes

    async def models(self) -> list[Listed]:
        """Return all models with their versions."""
        content = await self._json("/model/", _LISTING_BYTES)
        try:
            return listed_in(content)
        except ValueError as error:
            raise PeerFailed(self.url, str(error)) from None

    async def configuration_of(self, offer: Offer) -> Mapping[str, Any] | None:
        """Return the configuration of the job that trained a version; None where the service knows no such job."""
        training, run = offer.lineage.get("training_id"), offer.lineage.get("run_id")
        if not training:
            return None
        query = f"/jobs?training_id={quote(str(training), safe='')}&limit=100"
        try:
            page = await self._json(query, _RECORD_BYTES)
        except PeerFailed:
            return None
        jobs = page.get("jobs", []) if isinstance(page, dict) else []
        for job in jobs if isinstance(jobs, list) else []:
            if isinstance(job, dict) and job.get("run_id") == run and isinstance(job.get("configuration"), dict):
                return dict(job["configuration"])
        return None

    async def download(self, offer: Offer, path: Path) -> str:
        """Write a version's file, held against the digest that was offered; return its digest."""
        hashed, size = hashlib.sha256(), 0
        try:
            async with self._get(offer.path, _DOWNLOAD) as response:
                with await asyncio.to_thread(path.open, "wb") as file:
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        size += len(chunk)
                        if size > self._max_bytes:
                            raise PeerFailed(self.url, f"{offer.path} has more than {self._max_bytes} bytes")
                        await asyncio.to_thread(_take, file, hashed, chunk)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PeerFailed(self.url, f"{offer.path} broke off: {error or type(error).__name__}") from None
        digest = hashed.hexdigest()
        if offer.digest and digest != offer.digest:
            raise PeerFailed(self.url, f"{offer.path} has the digest {digest}, {offer.digest} was offered")
        return digest

    async def _json(self, path: str, limit: int) -> Any:
        try:
            async with self._get(path, _ASK) as response:
                content = await _bounded(response, limit)
            if len(content) > limit:
                raise PeerFailed(self.url, f"{path} answers with more than {limit} bytes")
            return json.loads(content)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PeerFailed(self.url, str(error) or type(error).__name__) from None
        except (ValueError, RecursionError):
            raise PeerFailed(self.url, f"{path} answers with what is no JSON") from None

    @asynccontextmanager
    async def _get(self, path: str, patience: aiohttp.ClientTimeout) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {hdrs.ACCEPT_ENCODING: "identity"}
        if self._token:
            headers[hdrs.AUTHORIZATION] = f"Bearer {self._token}"
        async with (
            aiohttp.ClientSession(headers=headers, timeout=patience) as session,
            # Not along a redirect: it could carry the token elsewhere.
            session.get(f"{self.url}{path}", allow_redirects=False, ssl=self._tls or True) as response,
        ):
            if response.status != HTTPStatus.OK:
                raise PeerFailed(self.url, f"{path} answers {response.status}")
            yield response


def token_of(path: Path | None) -> str | None:
    """Return the first token of a file like the node's own; raise `InvalidConfiguration` where there is none."""
    if path is None:
        return None
    lines = (line.strip() for line in read_secret(path, "LOCEX_NODE_TOKEN_FILE").splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    scope, separator, token = first.partition(":")
    token = token.strip() if separator else scope
    if not token:
        raise InvalidConfiguration(f"the token file {path} holds no token", remedy="check LOCEX_NODE_TOKEN_FILE")
    return token


def _trusting(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise InvalidConfiguration(
            f"the certificates of {ca} cannot be used: {error}", remedy="LOCEX_NODE_CA"
        ) from None


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    content = bytearray()
    while len(content) <= limit and (chunk := await response.content.readany()):
        content += chunk
    return bytes(content)


def _take(file: Any, hashed: Any, chunk: bytes) -> None:
    hashed.update(chunk)
    file.write(chunk)
