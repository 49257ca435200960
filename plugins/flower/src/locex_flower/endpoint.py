"""Where a SuperLink is, and clients of its Fleet API that sign what they send."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClientInterceptor, ProtobufRequestContext
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from locex.api import FederationContext

TIMEOUT = 30.0
"""Seconds that a call may be silent."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A SuperLink's base URL and what its certificate is checked against."""

    url: str
    verify: ssl.SSLContext | bool

    @classmethod
    def of(cls, context: FederationContext) -> Endpoint:
        """Return the endpoint that a job names; root certificates imply TLS."""
        if context.root_certificates is not None:
            verify = ssl.create_default_context(cafile=str(context.root_certificates))
            return cls(f"https://{context.server_address}", verify)
        return cls(f"{'http' if context.insecure else 'https'}://{context.server_address}", not context.insecure)

    @property
    def secure(self) -> bool:
        """Whether calls go over TLS."""
        return self.url.startswith("https:")

    def client(self, key: ec.EllipticCurvePrivateKey, *, timeout: float = TIMEOUT) -> FleetHttpClient:
        """Return a client that signs with the node's key; ``timeout`` in seconds."""
        interceptors: list[ProtobufClientInterceptor] = [_Version(), NodeAuthHttpInterceptor(key, key.public_key())]
        return FleetHttpClient(self.url, interceptors=interceptors, verify=self.verify, timeout=timeout)


class _Version:
    """Names the version of Flower; Flower's own interceptor exits the process where a SuperLink refuses it."""

    def __init__(self) -> None:
        self._headers = dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata())

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers.update(self._headers)
        return call_next(context)
