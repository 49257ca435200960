"""Ports of trainings."""

from __future__ import annotations

import socket

from locex.errors import InvalidConfiguration


class PortInUse(InvalidConfiguration):
    """The port of a training is taken."""

    def __init__(self, host: str, port: str) -> None:
        """``port``: the port or the range that was tried."""
        super().__init__(
            f"port {port} on {host} is in use",
            remedy="ask for another port in the job's `port`, set FEDERATED_PORT, or stop what uses it",
            errors=[{"path": "/port", "message": f"port {port} is in use"}],
        )


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the port; raise `PortInUse`. No SO_REUSEPORT: gRPC's would share a taken port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise PortInUse(host, str(port)) from None
    return listener


def is_free(host: str, port: int) -> bool:
    """Tell whether the port can be bound now."""
    try:
        bind(host, port).close()
    except PortInUse:
        return False
    return True
