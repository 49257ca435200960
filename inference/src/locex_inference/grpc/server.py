"""The gRPC server: made, started, stopped."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from grpc import aio

from locex.errors import InvalidConfiguration
from locex.web.auth import Tokens
from locex.web.serve import Tls
from locex_inference.grpc import extras, inference, models, older, reflection
from locex_inference.grpc.calls import Methods
from locex_inference.grpc.health import SERVICE as HEALTH
from locex_inference.grpc.health import Health
from locex_inference.grpc.parts import Parts

PROTOCOL = "inference.GRPCInferenceService"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what comes in and goes out. ``message_bytes`` holds for messages after decompression too."""

    message_bytes: int = 512 << 20
    calls: int = 4096


class GrpcServer:
    """A started server. Make it with `start`, end it with `stop`."""

    def __init__(self, server: aio.Server, health: Health, port: int) -> None:
        """``port``: the one that it listens on."""
        self._server = server
        self._health = health
        self.port = port

    async def stop(self, grace: float) -> None:
        """Take no new calls, let those under way end for ``grace`` seconds, then cancel them."""
        self._health.stop()
        await self._server.stop(grace)


async def start(
    parts: Parts,
    *,
    host: str,
    port: int,
    tokens: Tokens | None = None,
    tls: Tls | None = None,
    limits: Limits | None = None,
    reuse_port: bool = False,
) -> GrpcServer:
    """Return a server that listens; raise `InvalidConfiguration` where it cannot.

    ``port`` 0: a free one. ``reuse_port``: further processes may listen on the same port.
    """
    limits = limits or Limits()
    services = [PROTOCOL, *older.SERVICES]
    health = Health(parts.serving, frozenset(services))
    methods = [
        *inference.methods(parts),
        *models.methods(parts),
        *extras.methods(parts),
        *older.methods(parts),
        *health.methods(),
        *reflection.methods([*services, HEALTH]),
    ]
    server = aio.server(
        handlers=[Methods(methods, tokens, frozenset(name.rpartition(".")[2] for name in older.SERVICES))],
        options=[
            ("grpc.max_receive_message_length", limits.message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(reuse_port)),
        ],
        maximum_concurrent_rpcs=limits.calls,
    )
    bound = _listen(server, host, port, tls)
    await server.start()
    return GrpcServer(server, health, bound)


def _listen(server: aio.Server, host: str, port: int, tls: Tls | None) -> int:
    address = f"[{host}]:{port}" if ":" in host else f"{host or '[::]'}:{port}"
    try:
        if tls is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, _credentials(tls)))
    except RuntimeError as error:
        raise InvalidConfiguration(
            f"cannot listen on {address} for gRPC: {error}", remedy="choose another port in LOCEX_GRPC_PORT"
        ) from None


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    tls.context()  # raises where the files cannot be used, which gRPC tells in its log only
    client_ca = tls.client_ca.read_bytes() if tls.client_ca else None
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)
