"""A hard limit on memory while plugins or a model are loaded: the service, which looks once a second, is too late."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from locex import machine
from locex.artefacts.memory import allocated

_MIB, _GIB = 2**20, 2**30


@contextmanager
def hard_limit(limit_mb: int | None) -> Iterator[None]:
    """Let this process take no more than so many MiB beyond what it has, or than the machine has free.

    What goes beyond is a `MemoryError`, or ends the process. Not RLIMIT_AS: frameworks reserve far more addresses than
    they use.
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
