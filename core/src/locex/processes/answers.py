"""Asking a child that runs foreign code: an answer in time, or the error that names how it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from locex.errors import CrashedPlugin
from locex.processes.child import Child

_EXIT = 1.0  # seconds between the end of a child's output and its own end, before it is killed


@contextlib.asynccontextmanager
async def short_lived(argv: Sequence[str], *, environment: Mapping[str, str | None]) -> AsyncIterator[Child]:
    """Start a child that is ended with the block."""
    child = await Child.start(argv, environment=environment)
    try:
        yield child
    finally:
        child.kill()
        await child.wait()


async def answer_of(child: Child, what: str, patience: float) -> dict[str, Any]:
    """Return the child's next message; end a child that gives none within ``patience`` seconds.

    Raise `CrashedPlugin` then, which names ``what`` was being done, how the child ended, and its last words.
    """
    try:
        async with asyncio.timeout(patience):
            answer = await child.receive()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise CrashedPlugin(what, f"did not end within {patience:g} s", child.log) from None
    if answer is None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXIT):
                await child.exited()
        child.kill()
        code = await child.wait()
        raise CrashedPlugin(what, f"ended the process with exit code {code}", child.log)
    return answer
