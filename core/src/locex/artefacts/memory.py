"""Memory that a model may take: what is left of this process's limit and of the machine."""

from __future__ import annotations

import resource
from pathlib import Path

from locex import machine
from locex.errors import InvalidModel

_KIB, _MIB, _GIB = 2**10, 2**20, 2**30


def room() -> int:
    """Return the bytes that this process may still allocate."""
    free = int(machine.free_memory() * _GIB)
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return free if limit == resource.RLIM_INFINITY else max(0, min(free, limit - allocated()))


def allocated() -> int:
    """Return the bytes of this process that RLIMIT_DATA counts: its writable private memory."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * _KIB for line in status.splitlines() if line.startswith("VmData:")), 0)


def require_room(needed: int, what: str) -> None:
    """Raise `InvalidModel` where something that says how large it is (in bytes) does not fit; ask before making it."""
    left = room()
    if needed > left:
        raise InvalidModel(
            f"{what} needs {needed / _MIB:,.0f} MiB of memory, there are {left / _MIB:,.0f} MiB",
            remedy="choose a smaller model, or raise resources.memory_mb and LOCEX_WORKER_MEMORY_MB",
        )
