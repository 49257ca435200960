"""Who may do what: bearer tokens with scopes, and what protects a service without tokens."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from locex.errors import Forbidden, InvalidConfiguration, Unauthorized
from locex.settings import ServiceSettings
from locex.web.lookup import route_of
from locex.web.routes import Scope

logger = logging.getLogger(__name__)


class Tokens:
    """The tokens of a file, read again when it changes.

    A line is ``scope:token`` (scopes: read, run, admin) or a bare token, which is admin; ``#`` begins a comment line.
    A file that becomes unreadable or invalid while the service runs leaves nobody in until it is repaired.
    """

    def __init__(self, path: Path) -> None:
        """Read the file; raise `InvalidConfiguration` where it has no valid tokens."""
        self._path = path
        self._seen = self._state()
        self._scopes = self._read()

    def scope_of(self, token: str) -> Scope | None:
        """Return what a token allows; None for an unknown one."""
        self._refresh()
        digest = _digest(token)
        found = None
        for known, scope in self._scopes.items():
            if hmac.compare_digest(known, digest):
                found = scope
        return found

    def _state(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    def _refresh(self) -> None:
        if (state := self._state()) == self._seen:
            return
        self._seen = state
        try:
            self._scopes = self._read()
        except InvalidConfiguration as error:
            self._scopes = {}
            logger.error("nobody can enter: %s", error)  # noqa: TRY400 -- the message says all

    def _read(self) -> dict[bytes, Scope]:
        remedy = "write one `scope:token` per line (read, run, admin), readable by the service's user only"
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
            if self._path.stat().st_mode & 0o077:
                logger.warning("the token file %s can be read by other users of this machine", self._path)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfiguration(f"the token file {self._path} cannot be read: {error}", remedy=remedy) from None
        scopes = dict(
            self._parse(number, line.strip(), remedy)
            for number, line in enumerate(lines, start=1)
            if line.strip() and not line.strip().startswith("#")
        )
        if not scopes:
            raise InvalidConfiguration(f"the token file {self._path} holds no token", remedy=remedy)
        return scopes

    def _parse(self, number: int, line: str, remedy: str) -> tuple[bytes, Scope]:
        scope, separator, token = line.partition(":")
        if not separator:
            return _digest(line), Scope.ADMIN
        if scope.upper() not in Scope.__members__ or not token.strip():
            raise InvalidConfiguration(f"line {number} of the token file {self._path} is invalid", remedy=remedy)
        return _digest(token.strip()), Scope[scope.upper()]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True)
class Access:
    """How a service is protected.

    ``tokens`` None: every caller is admin. Then requests of web pages from elsewhere are refused, and, unless
    ``any_host``, those whose Host is neither loopback nor in ``hosts`` (DNS rebinding).
    """

    tokens: Tokens | None = None
    hosts: frozenset[str] = frozenset()
    any_host: bool = False


ACCESS: web.AppKey[Access] = web.AppKey("access", Access)


def make_access(
    host: str, token_file: Path | None, *, insecure: bool = False, mutual_tls: bool = False, hosts: frozenset[str]
) -> Access:
    """Return the protection of a service that listens on ``host``; raise `InvalidConfiguration` where it has none."""
    check_exposure(host, token_file, insecure=insecure, mutual_tls=mutual_tls)
    tokens = Tokens(token_file) if token_file else None
    return Access(tokens=tokens, hosts=hosts, any_host=insecure or mutual_tls)


def access_of(settings: ServiceSettings) -> Access:
    """Return the protection that a service's settings ask for; raise `InvalidConfiguration` where it has none."""
    return make_access(
        settings.host,
        settings.api_token_file,
        insecure=settings.insecure,
        mutual_tls=settings.tls_client_ca is not None,
        hosts=frozenset(settings.allowed_hosts),
    )


def check_exposure(host: str, token_file: Path | None, *, insecure: bool = False, mutual_tls: bool = False) -> None:
    """Raise `InvalidConfiguration` for a service beyond loopback with neither tokens nor client certificates."""
    if token_file or insecure or mutual_tls or is_loopback(host):
        return
    raise InvalidConfiguration(
        f"refused to listen on {host or 'all addresses'} without a token: everybody who reaches it could run jobs",
        remedy="name a token file in LOCEX_API_TOKEN_FILE, listen on 127.0.0.1, or say LOCEX_INSECURE=1",
    )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request through that has the scope of its route."""
    route = route_of(request)
    admit(request.app[ACCESS], request.headers, route.scope if route else None)
    return await handler(request)


def admit(access: Access, headers: Mapping[str, str], needed: Scope | None) -> None:
    """Raise `Unauthorized` or `Forbidden` for a request that may not have what needs this scope; None: open to all."""
    if access.tokens is None:
        _refuse_strangers(headers, access)
    elif needed is not None:
        require(access.tokens, headers.get(hdrs.AUTHORIZATION, ""), needed)


def require(tokens: Tokens, authorization: str, needed: Scope) -> None:
    """Raise `Unauthorized` or `Forbidden` where ``Bearer TOKEN`` does not have the scope."""
    kind, _, token = authorization.partition(" ")
    scope = tokens.scope_of(token.strip()) if kind.lower() == "bearer" else None
    remedy = "send `Authorization: Bearer TOKEN` with a token of the service's token file"
    if scope is None:
        raise Unauthorized("this path needs a valid token", remedy=remedy)
    if scope < needed:
        raise Forbidden(
            f"this path needs the scope {needed.name.lower()}, the token has {scope.name.lower()}",
            remedy="use a token with that scope",
        )


def _refuse_strangers(headers: Mapping[str, str], access: Access) -> None:
    given = headers.get(hdrs.HOST, "")
    host = _hostname(given)
    if not (access.any_host or is_loopback(host) or host in access.hosts):
        raise Forbidden(
            f"requests to the host {host!r} are not taken by a service without tokens",
            remedy="use 127.0.0.1 or localhost, or protect the service with LOCEX_API_TOKEN_FILE",
        )
    origin = headers.get(hdrs.ORIGIN)
    if origin is not None and urlsplit(origin).netloc != given:
        raise Forbidden(
            "requests of web pages from elsewhere are not taken by a service without tokens",
            remedy="protect the service with LOCEX_API_TOKEN_FILE and send the token",
        )


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
