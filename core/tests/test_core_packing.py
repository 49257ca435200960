"""A checkpoint becomes one archive and a checkpoint again, also while the worker writes the next; nothing else does."""

from __future__ import annotations

import shutil
import zipfile

import pytest

from locex.errors import InvalidModel, TooLarge
from locex.jobs import packing
from locex.jobs.packing import pack, unpack


def save(folder, generation, word):
    """Write a generation as a worker does, and drop the older."""
    place = folder / generation
    (place / "optimizer" / "empty").mkdir(parents=True)
    (place / "optimizer" / "word").write_text(word)
    (place / "progress.json").write_text("{}")
    (folder / "current").write_text(generation)
    for older in folder.iterdir():
        if older.is_dir() and older.name != generation:
            shutil.rmtree(older)


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "checkpoint", "3-abcd", "three")
    return tmp_path / "checkpoint"


@pytest.fixture
def packed(tmp_path):
    """Write an archive's bytes, or those of a zip with these entries."""

    def written(content):
        path = tmp_path / "packed"
        if isinstance(content, dict):
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in content.items():
                    archive.writestr(name, data)
        else:
            path.write_bytes(b"".join(content))
        return path

    return written


def test_a_checkpoint_comes_back_as_it_was(folder, packed, tmp_path):
    (tmp_path / "other").mkdir()
    assert unpack(packed(pack(folder)), tmp_path / "other") == 3
    assert tree(tmp_path / "other") == tree(folder)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_equal_generations_give_equal_archives(folder):
    assert b"".join(pack(folder)) == b"".join(pack(folder))


def test_large_files_come_in_pieces(folder):
    (folder / "3-abcd" / "large").write_bytes(b"x" * (5 << 20))
    assert max(map(len, pack(folder))) < 2 << 20


def test_a_generation_that_is_dropped_while_it_is_packed_is_packed_whole(folder, packed, tmp_path):
    (folder / "3-abcd" / "a").write_bytes(b"x" * (3 << 20))
    archive = pack(folder)
    first = next(archive)
    save(folder, "4-ef", "four")
    assert unpack(packed([first, *archive]), tmp_path / "other") == 3
    assert (tmp_path / "other" / "3-abcd" / "optimizer" / "word").read_text() == "three"


def test_a_generation_that_is_dropped_while_it_is_opened_is_left_for_the_newer(folder, packed, tmp_path, monkeypatch):
    read, seen = packing._current, []

    def slow(place):
        seen.append(read(place))
        if len(seen) == 1:
            save(folder, "4-ef", "four")
        return seen[-1]

    monkeypatch.setattr(packing, "_current", slow)
    assert unpack(packed(pack(folder)), tmp_path / "other") == 4
    assert tree(tmp_path / "other") == tree(folder)


def test_what_is_not_whole_is_not_packed(folder, tmp_path):
    with pytest.raises(FileNotFoundError):
        next(pack(tmp_path / "absent"))
    shutil.rmtree(folder / "3-abcd")
    with pytest.raises(FileNotFoundError, match="3-abcd"):
        next(pack(folder))


def test_what_could_not_be_unpacked_is_not_packed(folder, monkeypatch):
    monkeypatch.setattr(packing, "MAX_BYTES", 6)
    with pytest.raises(TooLarge, match="7 bytes"):
        next(pack(folder))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ([b"no archive"], InvalidModel),
        ({"../3-a/word": b"x"}, InvalidModel),
        ({"/3-a/word": b"x"}, InvalidModel),
        ({"3-a/word": b"x", "4-b/word": b"y"}, ValueError),
        ({"plugins/word": b"x"}, ValueError),
        ({}, ValueError),
    ],
)
def test_other_archives_change_nothing(folder, packed, content, error):
    before = tree(folder)
    with pytest.raises(error):
        unpack(packed(content), folder)
    assert tree(folder) == before
    assert not (folder.parent / "3-a").exists()
