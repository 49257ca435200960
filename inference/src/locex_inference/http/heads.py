"""The head of an HTTP request, read by llhttp: whether it is a plain infer request, and where the message ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import httptools

LARGEST = 16 << 10
"""Bytes of a head; aiohttp, which gets those that are longer, refuses them."""

_PREFIX, _VERSIONS, _END = "/v2/models/", "versions", "infer"
_LENGTH = "content-length"
_STREAMED = frozenset({"transfer-encoding", "upgrade", "expect", "te", "trailer"})


@dataclass(frozen=True, slots=True)
class Head:
    """What a head says. ``length`` is the body's, None: it cannot be told; ``plain``: a plain infer request."""

    headers: Mapping[str, str]
    path: str
    model: str
    version: str
    length: int | None
    plain: bool


class _Reader:
    """Receives what llhttp finds."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[str, str] = {}
        self.repeated = False
        self.whole = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        self.repeated |= key in self.headers
        self.headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.whole = True


def read_head(head: bytes) -> Head | None:
    """Return what a head says, its empty line included; None where only aiohttp can tell."""
    reader = _Reader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    if not reader.whole or reader.repeated or parser.get_http_version() != "1.1":
        return None
    headers = reader.headers
    if not _STREAMED.isdisjoint(headers) or "close" in headers.get("connection", "").lower():
        return None
    length = headers.get(_LENGTH, "0")
    if not (length.isascii() and length.isdigit() and len(length) < 16):  # noqa: PLR2004 -- fits any machine
        return None
    path = reader.url.decode("latin-1")
    model, version = _names(path)
    plain = bool(model) and parser.get_method() == b"POST" and _LENGTH in headers
    return Head(headers, path, model, version, int(length), plain)


def _names(path: str) -> tuple[str, str]:
    """Return model and version of an infer request's path; empty for other paths."""
    if not path.startswith(_PREFIX):
        return "", ""
    match path.removeprefix(_PREFIX).split("/"):
        case [model, "infer"]:
            return unquote(model), ""
        case [model, "versions", version, "infer"]:
            return unquote(model), unquote(version)
    return "", ""
