"""The machine's graphics processors, as their drivers tell."""

from __future__ import annotations

from pathlib import Path

from locex.machine import has_amd, has_nvidia
from locex.schemas.capabilities import Gpu

_GIB = 2**30
_AMD = "0x1002"  # the vendor's PCI id
_UNKNOWN = "unknown"


def find_gpus(root: Path = Path("/")) -> list[Gpu]:
    """Return every GPU for computation; of one whose driver cannot be asked, only that it is there.

    ``root`` is where /dev and /sys lie.
    """
    found = []
    if has_nvidia(root):
        found += _nvidia() or [Gpu(vendor="NVIDIA", name=_UNKNOWN)]
    if has_amd(root):
        found += _amd(root) or [Gpu(vendor="AMD", name=_UNKNOWN)]
    return found


def _nvidia() -> list[Gpu]:
    """Ask NVIDIA's management library (https://docs.nvidia.com/deploy/nvml-api)."""
    import pynvml  # only where there is such a driver: it takes 50 ms

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [_nvidia_gpu(pynvml.nvmlDeviceGetName(one), pynvml.nvmlDeviceGetMemoryInfo(one)) for one in handles]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _nvidia_gpu(name: str | bytes, memory: object) -> Gpu:
    text = name.decode() if isinstance(name, bytes) else name
    total, free = (getattr(memory, part) / _GIB for part in ("total", "free"))
    return Gpu(vendor="NVIDIA", name=text, memory=total, free_memory=free)


def _amd(root: Path) -> list[Gpu]:
    """Read what the driver amdgpu tells (https://docs.kernel.org/gpu/amdgpu)."""
    cards = sorted((root / "sys/class/drm").glob("card[0-9]*/device"))
    return [_amd_gpu(card) for card in cards if _text(card / "vendor") == _AMD]


def _amd_gpu(card: Path) -> Gpu:
    total, used = _gib(card / "mem_info_vram_total"), _gib(card / "mem_info_vram_used")
    free = None if total is None or used is None else total - used
    return Gpu(vendor="AMD", name=_text(card / "product_name") or _UNKNOWN, memory=total, free_memory=free)


def _gib(path: Path) -> float | None:
    text = _text(path)
    return int(text) / _GIB if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
