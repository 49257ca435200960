"""Tensors in system (POSIX) shared memory, for clients on the same machine, the same on every transport.

Source: Triton's system shared memory extension. A region is read and written by file calls, not through a mapping: a
client that shrinks its region meanwhile then gets an error, where a mapping would end the service with SIGBUS, and
what was validated cannot change under the model. It costs one copy of the tensor.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from locex_inference.errors import InferenceError, InvalidInference

FOLDER = Path("/dev/shm")  # noqa: S108 -- where Linux keeps POSIX shared memory; only existing objects are opened
MAX_REGIONS = 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,249}")
_KEY = re.compile(r"/?([A-Za-z0-9_][A-Za-z0-9_.-]{0,249})")


class UnknownRegion(InferenceError):
    """A region of shared memory that nobody registered."""

    code = "shared-memory-unknown"
    http = 404
    grpc = "NOT_FOUND"

    def __init__(self, name: str) -> None:
        """Name it."""
        super().__init__(f"no shared memory region {name!r} is registered", remedy="register it first")


class DuplicateRegion(InferenceError):
    """A region of this name is registered already."""

    code = "shared-memory-duplicate"
    http = 400
    grpc = "ALREADY_EXISTS"

    def __init__(self, name: str) -> None:
        """Name it."""
        super().__init__(
            f"a shared memory region {name!r} is registered already", remedy="unregister it first, or take another name"
        )


class RefusedRegion(InferenceError):
    """Shared memory is off, or of a kind that is not there."""

    code = "shared-memory-refused"
    http = 403
    grpc = "PERMISSION_DENIED"


class InvalidRegion(InvalidInference):
    """A region that cannot be what the request says: key, size, offset."""

    code = "shared-memory-invalid"


@dataclass(frozen=True, slots=True)
class Region:
    """``byte_size`` bytes from ``offset`` of the shared memory object ``key``, under a name of the client's choice."""

    name: str
    key: str
    offset: int
    byte_size: int
    descriptor: int


@dataclass(frozen=True, slots=True)
class Part:
    """Where a tensor lies: a region's name, and the bytes within it."""

    region: str
    byte_size: int
    offset: int = 0


def part_of(parameters: Mapping[str, Any], tensor: str) -> Part | None:
    """Return where a tensor's parameters place it; None: in the message. Raise `InvalidRegion` for half a place."""
    region = parameters.get("shared_memory_region")
    if region is None:
        return None
    size, offset = parameters.get("shared_memory_byte_size"), parameters.get("shared_memory_offset", 0)
    if not isinstance(region, str) or not _is_size(size) or not _is_size(offset):
        raise InvalidRegion(
            f"{tensor!r} is in shared memory and does not say where: "
            "shared_memory_region is a name, shared_memory_byte_size and shared_memory_offset are whole numbers"
        )
    return Part(region, size, offset)


class SharedMemory:
    """The regions that clients registered. Where it is not ``enabled``, nobody can register one."""

    def __init__(self, *, enabled: bool) -> None:
        """Begin without regions."""
        self._enabled = enabled
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a shared memory object that a client made; raise a class of this module where it cannot be used."""
        if not self._enabled:
            raise RefusedRegion(
                "shared memory is off on this service",
                remedy="send tensors in the request, or set LOCEX_SHARED_MEMORY=1 on a service for trusted callers",
            )
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidRegion("the name of a region has up to 250 letters, digits and _ . : - only")
        if name in self._regions:
            raise DuplicateRegion(name)
        if len(self._regions) >= MAX_REGIONS:
            raise InvalidRegion(f"{MAX_REGIONS} regions are registered, there may be no more")
        if not _is_size(offset) or not _is_size(byte_size) or not byte_size:
            raise InvalidRegion(f"the region {name!r} needs an offset of 0 or more and a byte_size of 1 or more")
        descriptor = _open(name, key, offset + byte_size)
        self._regions[name] = Region(name, key, offset, byte_size, descriptor)

    def unregister(self, name: str = "") -> None:
        """Let go of a region, or of all; one that is not there is none the less gone."""
        for gone in [name] if name else list(self._regions):
            region = self._regions.pop(gone, None)
            if region is not None:
                os.close(region.descriptor)

    def status(self, name: str = "") -> list[Region]:
        """Return a region, or all; raise `UnknownRegion`."""
        return [self._find(name)] if name else list(self._regions.values())

    def read(self, part: Part, tensor: str) -> bytes:
        """Return the bytes of a tensor as they are now."""
        region = self._place(part, tensor)
        content = os.pread(region.descriptor, part.byte_size, region.offset + part.offset)
        if len(content) != part.byte_size:
            raise InvalidRegion(f"the region {part.region!r} is shorter than it was when it was registered")
        return content

    def write(self, part: Part, content: bytes | memoryview, tensor: str) -> int:
        """Write a tensor's bytes where the client wants them; return how many they are."""
        region = self._place(part, tensor)
        if len(content) > part.byte_size:
            raise InvalidRegion(
                f"{tensor!r} takes {len(content)} bytes, shared_memory_byte_size gives it {part.byte_size}"
            )
        start = region.offset + part.offset
        if os.fstat(region.descriptor).st_size < start + len(content):
            raise InvalidRegion(f"the region {part.region!r} is shorter than it was when it was registered")
        if os.pwrite(region.descriptor, content, start) != len(content):
            raise InvalidRegion(f"the machine has no memory left for the region {part.region!r}")
        return len(content)

    def close(self) -> None:
        """Let go of all regions."""
        self.unregister()

    def _find(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise UnknownRegion(name)
        return region

    def _place(self, part: Part, tensor: str) -> Region:
        region = self._find(part.region)
        if part.offset + part.byte_size > region.byte_size:
            raise InvalidRegion(
                f"{tensor!r} reaches to byte {part.offset + part.byte_size} of the region {part.region!r}, "
                f"which has {region.byte_size}"
            )
        return region


def refuse_cuda() -> RefusedRegion:
    """Return the error for CUDA shared memory, which this service has none of."""
    return RefusedRegion(
        "CUDA shared memory is not supported by this service",
        remedy="use system shared memory, or send tensors in the request",
    )


def _is_size(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 63


def _open(name: str, key: str, needed: int) -> int:
    """Return a descriptor of the object; the key is a name within one folder, and links are not followed."""
    found = _KEY.fullmatch(key) if isinstance(key, str) else None
    if not found:
        raise InvalidRegion(f"the key of the region {name!r} has up to 250 letters, digits and _ . - only")
    try:
        descriptor = os.open(FOLDER / found[1], os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidRegion(
            f"the shared memory object {key!r} of the region {name!r} cannot be opened: {error.strerror}",
            remedy="create it first, on this machine (and in this pod), readable and writable for the service",
        ) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size < needed:
        os.close(descriptor)
        raise InvalidRegion(
            f"the region {name!r} needs {needed} bytes of the shared memory object {key!r}, it has {status.st_size}"
        )
    return descriptor
