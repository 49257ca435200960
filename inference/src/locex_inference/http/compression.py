"""Compressed bodies, both ways: gzip and deflate, with a bound on what comes out."""

from __future__ import annotations

import gzip
import zlib

from locex.errors import TooLarge
from locex.web.problems import MalformedBody, UnsupportedMedia

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_RAW = -15
_FAST = 1
"""Level of compression: tensors hardly shrink more at others, and each costs the caller time."""


def decompress(body: bytes | memoryview, encoding: str, limit: int) -> bytes:
    """Return the content; raise `TooLarge` beyond ``limit`` bytes, `MalformedBody` or `UnsupportedMedia`."""
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return bytes(body)
    window = _WINDOW.get(name)
    if window is None:
        raise UnsupportedMedia(f"bodies encoded as {encoding} are not taken", remedy="send gzip, deflate or neither")
    if name == "deflate" and not _has_header(body):
        window = _RAW  # some clients send deflate without zlib's header
    decoder = zlib.decompressobj(window)
    try:
        content = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        raise MalformedBody(f"the body is not valid {name}: {error}", remedy="send the whole body") from None
    if len(content) > limit:
        raise TooLarge(f"the body holds more than {limit} bytes", remedy="send less, or raise LOCEX_MAX_BODY_MB")
    if not decoder.eof:
        raise MalformedBody(f"the {name} body ended early", remedy="send the whole body")
    return content


def accepted(header: str) -> str:
    """Return the encoding to answer with, by ``Accept-Encoding``: gzip, deflate, or nothing."""
    if not header:
        return ""
    names: dict[str, bool] = {}
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        names[name.strip()] = weight.replace(" ", "") not in {"q=0", "q=0.0"}
    return next((name for name in ("gzip", "deflate") if names.get(name)), "")


def compress(content: bytes, encoding: str) -> bytes:
    """Return the content as gzip or deflate (zlib's form, RFC 9110)."""
    return gzip.compress(content, _FAST, mtime=0) if encoding == "gzip" else zlib.compress(content, _FAST)


def _has_header(body: bytes | memoryview) -> bool:
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0  # noqa: PLR2004 -- RFC 1950
