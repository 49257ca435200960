"""Which Flower servers a job may name."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Sequence

from locex.errors import ServerRefused

_RESOLVE_TIMEOUT = 2.0  # seconds; a name that does not resolve now may do so when the job runs


async def check_server(address: str, allowed: Sequence[str]) -> None:
    """Raise `ServerRefused` for a server outside the allow-list, and for link-local addresses always.

    ``address`` is host:port; ``allowed`` holds hosts or host:port, and admits every server where it is empty.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if allowed and host not in allowed and f"{host}:{port}" not in allowed:
        raise ServerRefused(
            f"the Flower server {address} is not admitted by this site (LOCEX_ALLOWED_SERVERS)",
            remedy="name an admitted server, or ask the operator to admit this one",
            errors=[{"path": "/server_address", "message": "not admitted"}],
        )
    if any(ipaddress.ip_address(found).is_link_local for found in await _addresses(host)):
        raise ServerRefused(
            f"the Flower server {address} has a link-local address, which is never admitted",
            remedy="name the server by a routable address",
            errors=[{"path": "/server_address", "message": "link-local"}],
        )


async def _addresses(host: str) -> list[str]:
    with contextlib.suppress(OSError, TimeoutError, UnicodeError):
        async with asyncio.timeout(_RESOLVE_TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            return [str(entry[4][0]).partition("%")[0] for entry in found]
    return []
