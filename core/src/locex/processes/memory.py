"""The memory of processes: what they hold, what this one may still take, and a hard limit to it."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil

from locex import machine

_KIB, _MIB, _GIB = 2**10, 2**20, 2**30


def memory_mb(pid: int) -> float:
    """Return the memory of a process and its descendants, in MiB.

    What is anonymous or shared memory counts; pages of mapped files are the system's to drop.
    """
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            total += _status(member.pid, "RssAnon:", "RssShmem:")
    return total / _MIB


def allocated() -> int:
    """Return the bytes of this process that RLIMIT_DATA counts: its writable private memory."""
    return _status("self", "VmData:")


def room() -> int:
    """Return the bytes that this process may still allocate."""
    free = int(machine.free_memory() * _GIB)
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return free if limit == resource.RLIM_INFINITY else max(0, min(free, limit - allocated()))


@contextlib.contextmanager
def hard_limit(limit_mb: int | None) -> Iterator[None]:
    """Let this process take no more than so many MiB beyond what it has, or than the machine has free.

    For the loading of plugins and models: a service, which looks once a second, is too late. What goes beyond is a
    `MemoryError`, or ends the process. Not RLIMIT_AS: frameworks reserve far more addresses than they use.
    """
    free = int(machine.free_memory() * _GIB)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = allocated() + min(free, limit_mb * _MIB if limit_mb else free)
    bounds = [bound, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _status(pid: int | str, *fields: str) -> int:
    """Return the sum of fields that the kernel tells of a process, in bytes; 0 where it tells none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * _KIB for line in lines if line.startswith(fields))
