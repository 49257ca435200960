"""Graphics processors as their drivers tell of them, with the drivers' files and library made up."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from locex.gpus import find_gpus

GIB = 2**30


class Management(ModuleType):
    """NVIDIA's management library with two processors, or with a driver that does not answer."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, works):
        super().__init__("pynvml")
        self._works, self.open = works, 0

    def nvmlInit(self):  # noqa: N802 -- the library's own name
        if not self._works:
            raise self.NVMLError("driver not loaded")
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return ["A100", b"L4"][handle]

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return SimpleNamespace(total=(80 - handle) * GIB, free=GIB)


def write(root, path, text=""):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_machine_without_any(tmp_path):
    assert find_gpus(tmp_path) == []


@pytest.mark.parametrize("works", [True, False])
def test_nvidias_are_told_by_their_library(tmp_path, monkeypatch, works):
    write(tmp_path, "dev/nvidia0")
    library = Management(works=works)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found = [gpu.model_dump() for gpu in find_gpus(tmp_path)]
    if works:
        assert found == [
            {"vendor": "NVIDIA", "name": "A100", "memory": 80, "free_memory": 1},
            {"vendor": "NVIDIA", "name": "L4", "memory": 79, "free_memory": 1},
        ]
    else:
        assert found == [{"vendor": "NVIDIA", "name": "unknown", "memory": None, "free_memory": None}]
    assert library.open == 0


def test_amds_are_told_by_the_kernel(tmp_path):
    write(tmp_path, "dev/kfd")
    card = "sys/class/drm/card1/device"
    for name, text in (
        ("vendor", "0x1002\n"),
        ("product_name", "Instinct MI210\n"),
        ("mem_info_vram_total", f"{64 * GIB}\n"),
        ("mem_info_vram_used", f"{4 * GIB}\n"),
    ):
        write(tmp_path, f"{card}/{name}", text)
    write(tmp_path, "sys/class/drm/card0/device/vendor", "0x8086\n")  # a display of another make
    write(tmp_path, "sys/class/drm/card1-DP-1/status", "connected\n")
    assert [gpu.model_dump() for gpu in find_gpus(tmp_path)] == [
        {"vendor": "AMD", "name": "Instinct MI210", "memory": 64, "free_memory": 60}
    ]
    (tmp_path / card / "vendor").write_text("0x8086")
    assert [gpu.name for gpu in find_gpus(tmp_path)] == ["unknown"]
