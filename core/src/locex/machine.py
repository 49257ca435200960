"""What this machine offers, without importing any framework."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

_GIB = 2**30


def free_memory() -> float:
    """Return memory that can be had without swapping, in GiB; a container's own limit counts."""
    available, limit = psutil.virtual_memory().available, _limit()
    if limit is None:
        return available / _GIB
    return min(available, max(limit - _number("memory.current"), 0)) / _GIB


def total_memory() -> float:
    """Return all memory that this process may use, in GiB."""
    total = psutil.virtual_memory().total
    return min(total, _limit() or total) / _GIB


def _limit() -> int | None:
    """Return the container's own limit, in bytes."""
    try:
        return _number("memory.max")
    except (OSError, ValueError):  # no such limit: "max", or another kind of control group
        return None


def _number(name: str) -> int:
    return int(Path("/sys/fs/cgroup", name).read_text(encoding="ascii"))


def free_storage(folder: Path) -> float:
    """Return free space where a folder is, or will be, in GiB."""
    return shutil.disk_usage(_existing(folder)).free / _GIB


def total_storage(folder: Path) -> float:
    """Return all space where a folder is, or will be, in GiB."""
    return shutil.disk_usage(_existing(folder)).total / _GIB


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def has_gpu() -> bool:
    """Return whether the kernel offers a GPU for computation."""
    return has_nvidia() or has_amd()


def has_nvidia(root: Path = Path("/")) -> bool:
    """Return whether there is the device file of NVIDIA's driver; ``root``: where /dev lies."""
    return (root / "dev/nvidia0").exists()


def has_amd(root: Path = Path("/")) -> bool:
    """Return whether there is the device file of AMD's driver for computation (ROCm)."""
    return (root / "dev/kfd").exists()


def cores() -> int:
    """Return the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
