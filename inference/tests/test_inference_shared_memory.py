import os
import uuid
from multiprocessing import shared_memory

import numpy as np
import pytest

from locex_inference.shared_memory import (
    FOLDER,
    MAX_REGIONS,
    DuplicateRegion,
    InvalidRegion,
    Part,
    RefusedRegion,
    SharedMemory,
    UnknownRegion,
    part_of,
)


@pytest.fixture
def memory():
    found = SharedMemory(enabled=True)
    yield found
    found.close()


@pytest.fixture
def segment():
    found = shared_memory.SharedMemory(f"locex-{uuid.uuid4().hex}", create=True, size=64)
    yield found
    found.close()
    found.unlink()


def test_regions_are_read_and_written_within_their_bounds(memory, segment):
    segment.buf[:8] = bytes(range(8))
    memory.register("r", f"/{segment.name}", 4, 16)
    assert memory.read(Part("r", 4), "x") == bytes([4, 5, 6, 7])
    assert memory.write(Part("r", 8, offset=8), np.arange(4, dtype=np.uint8).data, "y") == 4
    assert bytes(segment.buf[12:16]) == bytes([0, 1, 2, 3])
    for part in (Part("r", 17), Part("r", 8, offset=9), Part("r", 2**62, offset=2**62)):
        with pytest.raises(InvalidRegion, match="'x' reaches"):
            memory.read(part, "x")
    with pytest.raises(InvalidRegion, match="takes 9 bytes"):
        memory.write(Part("r", 8), bytes(9), "y")
    [status] = memory.status("r")
    assert (status.name, status.key, status.offset, status.byte_size) == ("r", f"/{segment.name}", 4, 16)


def test_a_region_that_shrank_is_an_error_and_nothing_worse(memory, segment):
    memory.register("r", segment.name, 0, 64)
    os.truncate(FOLDER / segment.name, 8)
    for use in (lambda: memory.read(Part("r", 16), "x"), lambda: memory.write(Part("r", 16), bytes(16), "x")):
        with pytest.raises(InvalidRegion, match="shorter"):
            use()
    os.truncate(FOLDER / segment.name, 64)


def test_names_are_registered_once_and_let_go_of(memory, segment):
    memory.register("r", segment.name, 0, 8)
    with pytest.raises(DuplicateRegion, match="'r'"):
        memory.register("r", segment.name, 0, 8)
    memory.register("s", segment.name, 8, 8)
    memory.unregister("r")
    memory.unregister("r")
    with pytest.raises(UnknownRegion, match="'r'"):
        memory.read(Part("r", 1), "x")
    with pytest.raises(UnknownRegion):
        memory.status("r")
    memory.unregister()
    assert memory.status() == []


@pytest.mark.parametrize(
    ("name", "key", "offset", "size"),
    [
        ("", "k", 0, 1),
        ("a/b", "k", 0, 1),
        ("r" * 300, "k", 0, 1),
        (5, "k", 0, 1),
        ("r", "../etc/passwd", 0, 1),
        ("r", "..", 0, 1),
        ("r", "a/b", 0, 1),
        ("r", "k\0", 0, 1),
        ("r", None, 0, 1),
        ("r", "absent-object", 0, 1),
        ("r", "k", -1, 1),
        ("r", "k", 0, 0),
        ("r", "k", 0, 1.5),
        ("r", "k", True, 1),
        ("r", "k", 2**63, 1),
    ],
)
def test_what_cannot_be_a_region_is_refused(memory, name, key, offset, size):
    with pytest.raises(InvalidRegion):
        memory.register(name, key, offset, size)


def test_only_plain_objects_of_enough_size_are_opened(memory, segment, tmp_path):
    with pytest.raises(InvalidRegion, match="needs 65 bytes"):
        memory.register("r", segment.name, 1, 64)
    target = tmp_path / "secret"
    target.write_bytes(bytes(64))
    names = [f"locex-{uuid.uuid4().hex}" for _ in range(3)]
    link, fifo, folder = (FOLDER / name for name in names)
    try:
        link.symlink_to(target)
        os.mkfifo(fifo)
        folder.mkdir()
        for name in names:
            with pytest.raises(InvalidRegion):
                memory.register("r", name, 0, 8)
    finally:
        link.unlink()
        fifo.unlink()
        folder.rmdir()


def test_there_are_only_so_many_regions(memory, segment, monkeypatch):
    monkeypatch.setattr("locex_inference.shared_memory.MAX_REGIONS", 2)
    memory.register("a", segment.name, 0, 1)
    memory.register("b", segment.name, 0, 1)
    with pytest.raises(InvalidRegion, match="no more"):
        memory.register("c", segment.name, 0, 1)
    assert MAX_REGIONS > 2


def test_where_it_is_off_nothing_is_registered(segment):
    with pytest.raises(RefusedRegion, match="off"):
        SharedMemory(enabled=False).register("r", segment.name, 0, 8)


def test_parameters_place_a_tensor_whole_or_not_at_all():
    assert part_of({}, "x") is None
    given = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    assert part_of(given, "x") == Part("r", 8, 0)
    assert part_of(given | {"shared_memory_offset": 4}, "x") == Part("r", 8, 4)
    for wrong in ({"shared_memory_byte_size": "8"}, {"shared_memory_offset": -1}, {"shared_memory_region": 5}):
        with pytest.raises(InvalidRegion, match="'x'"):
            part_of(given | wrong, "x")
    with pytest.raises(InvalidRegion):
        part_of({"shared_memory_region": "r"}, "x")
