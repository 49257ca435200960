"""Models that say how large they are are held against the memory that there is."""

from __future__ import annotations

from locex.errors import InvalidModel
from locex.processes.memory import room

_MIB = 2**20


def require_room(needed: int, what: str) -> None:
    """Raise `InvalidModel` where something that says how large it is (in bytes) does not fit; ask before making it."""
    left = room()
    if needed > left:
        raise InvalidModel(
            f"{what} needs {needed / _MIB:,.0f} MiB of memory, there are {left / _MIB:,.0f} MiB",
            remedy="choose a smaller model, or raise resources.memory_mb and LOCEX_WORKER_MEMORY_MB",
        )
