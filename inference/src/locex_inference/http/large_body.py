"""Large bodies of the fast way in, read straight into the memory where they are decoded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from locex.web.problems import MalformedBody
from locex_inference.http.infer import header_length

if TYPE_CHECKING:
    from locex_inference.http.fast import FastProtocol
    from locex_inference.http.heads import Head

LARGE = 1 << 17
"""Missing bytes of a body from which on another protocol on the connection costs less than copying them."""

_ALIGNMENT = 64


class LargeBody(asyncio.BufferedProtocol):
    """Stands in for a connection's protocol until the body is whole, which is then the owner's to decode.

    Otherwise the pieces would be copied when they arrive, when they are joined, when the body is cut from its head and,
    for tensors that do not begin at a multiple of their elements' size, once more.
    """

    def __init__(self, owner: FastProtocol, head: Head, begun: memoryview) -> None:
        """``begun`` is what has come of the body that ``head`` announces."""
        assert head.length is not None
        self._owner = owner
        self._head = head
        memory = np.empty(head.length + _ALIGNMENT, np.uint8)
        skip = -(memory.ctypes.data + _json_length(head)) % _ALIGNMENT
        self._body = memory.data[skip : skip + head.length]
        self._have = len(begun)
        self._body[: self._have] = begun

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 -- asyncio's name
        """Return the memory of what is missing; what follows the body is not read yet."""
        return self._body[self._have :]

    def buffer_updated(self, nbytes: int) -> None:
        """Note what has come."""
        self._have += nbytes
        self._owner.active = True
        if self._have == len(self._body):
            self._owner.received(self._head, self._body.toreadonly())

    def connection_lost(self, error: Exception | None) -> None:
        """End; nobody waits for an answer yet."""
        self._owner.connection_lost(error)

    def pause_writing(self) -> None:
        """Pass on."""
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._owner.resume_writing()


def _json_length(head: Head) -> int:
    """Return where the tensors' bytes begin; decoding tells what is wrong with it."""
    try:
        return header_length(head.headers) or 0
    except MalformedBody:
        return 0
