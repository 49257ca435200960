"""What this machine offers, without importing any framework."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

_GIB = 2**30


def free_memory() -> float:
    """Return memory that can be had without swapping, in GiB; a container's own limit counts."""
    available = psutil.virtual_memory().available
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such limit: "max", or another kind of control group
        return available / _GIB
    return min(available, max(limit - used, 0)) / _GIB


def free_storage(folder: Path) -> float:
    """Return free space where a folder is, or will be, in GiB."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free / _GIB


def has_gpu() -> bool:
    """Return whether the kernel offers a GPU for computation: NVIDIA's or AMD's device file."""
    return Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()


def cores() -> int:
    """Return the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
