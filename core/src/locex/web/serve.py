"""Running an application: one line when it listens, one line when it cannot, a graceful end on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from locex.errors import InvalidConfiguration, LocexError
from locex.settings import ServiceSettings

SHUTDOWN = 10.0
"""Seconds that open requests get to end."""


@dataclass(frozen=True)
class Tls:
    """Certificate chain and key in PEM; ``client_ca``: callers need a certificate that it signed (mutual TLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return the server's context; raise `InvalidConfiguration` for files that cannot be used."""
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.client_ca)
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            raise InvalidConfiguration(
                f"TLS cannot be set up with {self.certificate} and {self.key}: {error}",
                remedy="name a PEM certificate, its key and, for mutual TLS, the callers' CA",
            ) from None
        if self.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Site(Protocol):
    """Makes what listens for an application: `aiohttp.web.SockSite`, or another of its kind."""

    def __call__(
        self, runner: web.AppRunner, sock: socket.socket, *, ssl_context: ssl.SSLContext | None
    ) -> web.BaseSite:
        """Return a site that listens on the socket when it is started."""


def tls_of(settings: ServiceSettings) -> Tls | None:
    """Return the TLS that a service's settings name."""
    if settings.tls_certificate and settings.tls_key:
        return Tls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    return None


def serve_as(settings: ServiceSettings, app: web.Application, *, site: Site = web.SockSite) -> int:
    """Run with the address and TLS that a service's settings name; return the exit code of the process."""
    return serve(app, host=settings.host, port=settings.port, tls=tls_of(settings), site=site)


def serve(
    app: web.Application,
    *,
    host: str,
    port: int,
    tls: Tls | None = None,
    access_log: type[AbstractAccessLogger] | None = None,
    site: Site = web.SockSite,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
    **options: Any,
) -> int:
    """Run until a signal; return the exit code of the process: 0, or 1 after an error told in one line.

    Port 0 takes a free one; the line ``listening on …`` names it. ``loop`` makes the event loop; ``options`` are those
    of aiohttp's server.
    """
    options |= {"access_log_class": access_log} if access_log else {"access_log": None}
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(_run(app, host, port, tls, site, options))
    except LocexError as error:
        sys.stderr.write(f"error: {error.message}" + (f" ({error.remedy})" if error.remedy else "") + "\n")
        return 1
    return 0


async def _run(
    app: web.Application,
    host: str,
    port: int,
    tls: Tls | None,
    site: Site,
    options: dict[str, Any],
) -> None:
    context = tls.context() if tls else None
    # Before the application starts anything, so that a port in use leaves nothing to clean up.
    listener = _listen(host, port)
    ended = _signalled()
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=SHUTDOWN, **options)
    try:
        await runner.setup()
        await site(runner, listener, ssl_context=context).start()
        sys.stdout.write(f"listening on {_url(listener, secure=tls is not None)}\n")
        sys.stdout.flush()
        await ended.wait()
    finally:
        await runner.cleanup()
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        candidates = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(candidates, key=lambda candidate: candidate[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, OverflowError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        raise InvalidConfiguration(
            f"cannot listen on {host}:{port}: {'the port is in use' if in_use else error}",
            remedy="choose another PORT, or stop what listens there" if in_use else "check HOST and PORT",
        ) from None


def _signalled() -> asyncio.Event:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        ended.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)  # a second signal does not wait

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    return ended


def _url(listener: socket.socket, *, secure: bool) -> str:
    host, port = listener.getsockname()[:2]
    return f"http{'s' if secure else ''}://{f'[{host}]' if ':' in host else host}:{port}"
