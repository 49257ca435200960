"""The memory that processes hold and the system cannot take back."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

_HELD = ("RssAnon:", "RssShmem:")


def memory_mb(pid: int) -> float:
    """Return the memory of a process and its descendants, in MiB; files that are mapped read-only do not count."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            total += _held_kb(member.pid)
    return total / 2**10


def _held_kb(pid: int) -> int:
    """Return what is anonymous or shared memory; pages of mapped files are the system's to drop."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(_HELD))
