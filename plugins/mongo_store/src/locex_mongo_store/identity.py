"""Who a node is among those that share a database: a name and a token, kept in its state folder."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from locex.errors import StoreUnavailable


@dataclass(frozen=True, slots=True)
class Identity:
    """``name``: the owner of records. ``token``: tells two folders apart whose nodes were given one name."""

    name: str
    token: str

    @property
    def process(self) -> str:
        """This process, for people."""
        return f"{os.getpid()} on {socket.gethostname()}"


def identity_of(folder: Path, name: str | None) -> Identity:
    """Return the identity of the folder's node, made at its first use; raise `StoreUnavailable`."""
    path = folder / "node"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _write(path, secrets.token_hex(16))
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise StoreUnavailable(
            f"the file {path} cannot be used: {error}", remedy="name a state folder that this user may write to"
        ) from None
    return Identity(name or f"node-{token[:12]}", token)


def _write(path: Path, token: str) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, f"{token}\n".encode("ascii"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
