"""The services of the demo, as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import click

from locex.processes.child import Child

_START = 60.0  # seconds
_GRACE = 15.0  # seconds


@contextlib.asynccontextmanager
async def service(
    name: str, *arguments: str, port: int, folder: Path, environment: dict[str, str]
) -> AsyncIterator[str]:
    """Run ``locex`` with arguments until the block ends; yield its URL once it is ready."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    child = await Child.start(
        [sys.executable, "-m", "locex.cli", *arguments, "--port", str(port)],
        environment={"LOCEX_STATE_FOLDER": str(folder / "state"), "HOST": "127.0.0.1", **environment},
    )
    child.keep_log(folder / f"{name}.log")
    reading = asyncio.create_task(child.receive())
    url = f"http://127.0.0.1:{port}"
    try:
        await _ready(name, url, child, folder)
        yield url
    finally:
        reading.cancel()
        await child.end(_GRACE)


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def _ready(name: str, url: str, child: Child, folder: Path) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START), aiohttp.ClientSession() as session:
            while child.exit_code is None:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{url}/readyz") as response:
                        if response.ok:
                            return
                await asyncio.sleep(0.1)
    raise click.ClickException(f"{name} did not start; its log is {folder / f'{name}.log'}\n{child.log}")
