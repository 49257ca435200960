"""Server-sent events (HTML standard, section 9.2): a run's events as they come, resumable by ``Last-Event-ID``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from aiohttp import hdrs, web
from pydantic_core import to_json

from locex.schemas.record import JobEvent
from locex.web.problems import InvalidRequest

logger = logging.getLogger(__name__)

HEARTBEAT = 15.0
"""Seconds of silence after which a comment keeps the connection."""

RETRY = 3000
"""Milliseconds after which a client that lost the stream comes back."""

STOPPING: web.AppKey[asyncio.Event] = web.AppKey("stopping", asyncio.Event)
"""Set when the service shuts down; streams end then."""


def last_event_id(request: web.Request) -> int:
    """Return the id after which the caller wants events; 0 from the beginning. Raise `InvalidRequest`."""
    text = request.headers.get("Last-Event-ID", "") or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004 -- fits 64 bits
        raise InvalidRequest("Last-Event-ID is not the id of an event", remedy="send the last id that arrived, or none")
    return int(text)


async def stream_events(
    request: web.Request, events: AsyncGenerator[JobEvent], *, heartbeat: float = HEARTBEAT
) -> web.StreamResponse:
    """Send events until they end, the client goes or the service stops."""
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: "text/event-stream",
            hdrs.CACHE_CONTROL: "no-store",
            "X-Accel-Buffering": "no",  # nginx would hold the stream back
        }
    )
    await response.prepare(request)
    stopping = asyncio.ensure_future(request.app[STOPPING].wait())
    upcoming = asyncio.ensure_future(anext(events, None))
    try:
        await response.write(f"retry: {RETRY}\n\n".encode())
        while not stopping.done():
            await asyncio.wait((stopping, upcoming), timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED)
            if not upcoming.done():
                await response.write(b": still here\n\n")
                continue
            if (event := upcoming.result()) is None:
                break
            await response.write(_encode(event))
            upcoming = asyncio.ensure_future(anext(events, None))
        await response.write_eof()
    except ConnectionResetError:
        pass
    except Exception:
        # The answer has begun, so no problem can be sent; the client comes back after RETRY.
        logger.exception("event stream of %s ended", request.path)
    finally:
        stopping.cancel()
        upcoming.cancel()
        await asyncio.gather(stopping, upcoming, return_exceptions=True)
        await events.aclose()
    return response


def _encode(event: JobEvent) -> bytes:
    content = to_json(event.model_dump(), inf_nan_mode="null")
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.kind.encode(), content)
