from __future__ import annotations

import shutil

import numpy as np
import pytest

from locex.worker.checkpoint import Checkpoint


class Session:
    """Keeps one word as its state."""

    def __init__(self, word="", fails=False):
        self.word, self.fails = word, fails

    def save_state(self, folder):
        (folder / "optimizer").mkdir()
        (folder / "optimizer" / "word").write_text(self.word)
        if self.fails:
            raise KeyboardInterrupt

    def load_state(self, folder):
        self.word = (folder / "optimizer" / "word").read_text()


def parameters(value):
    return {"z": np.full((2, 2), value, np.float32), "a": np.array(value)}


@pytest.fixture
def folder(tmp_path):
    """A checkpoint after round 1."""
    Checkpoint(tmp_path / "c").save(Session("one"), parameters(1), {"round": 1, "mechanisms": [{"left": 3}]})
    return tmp_path / "c"


def load(folder):
    session = Session()
    found = Checkpoint(folder).load(session)
    return found and (session.word, float(found[0]["z"][0, 0]), found[1]["round"])


def generation(folder):
    return folder / (folder / "current").read_text()


def test_nothing_was_saved(tmp_path):
    assert load(tmp_path / "new") is None


def test_the_newest_generation_is_restored_and_the_older_is_gone(folder):
    assert load(folder) == ("one", 1, 1)
    Checkpoint(folder).save(Session("two"), parameters(2), {"round": 2})
    assert load(folder) == ("two", 2, 2)
    assert [path for path in folder.iterdir() if path.is_dir()] == [generation(folder)]


def test_shapes_types_and_progress_come_back_as_they_were(folder):
    restored, progress = Checkpoint(folder).load(Session())
    assert restored["z"].dtype == np.float32
    assert restored["a"].shape == ()
    assert restored["a"].dtype == np.int64
    assert progress == {"round": 1, "mechanisms": [{"left": 3}]}


def test_arrays_in_the_progress_come_back_where_they_stood(folder):
    residual, bits = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([True, False])
    progress = {"round": 2, "mechanisms": [{}, {"residual": residual, "nested": [1, {"bits": bits}]}]}
    Checkpoint(folder).save(Session("two"), parameters(2), progress)

    _, restored = Checkpoint(folder).load(Session())

    first, second = restored["mechanisms"]
    assert (restored["round"], first, second["nested"][0]) == (2, {}, 1)
    np.testing.assert_array_equal(second["residual"], residual, strict=True)
    np.testing.assert_array_equal(second["nested"][1]["bits"], bits, strict=True)
    next(generation(folder).glob("progress.safetensors")).unlink()
    assert load(folder) is None, "a generation without them is not whole"


def test_an_end_while_the_state_is_written_keeps_the_former_generation(folder):
    with pytest.raises(KeyboardInterrupt):
        Checkpoint(folder).save(Session("half", fails=True), parameters(2), {"round": 2})
    assert load(folder) == ("one", 1, 1)


def test_an_end_before_the_pointer_is_exchanged_keeps_the_former_generation(folder):
    (folder / "2-abcd").mkdir()
    (folder / "2-abcd" / "global.safetensors").write_bytes(b"half")
    (folder / "current.part").write_text("2-a")
    assert load(folder) == ("one", 1, 1)
    Checkpoint(folder).save(Session("two"), parameters(2), {"round": 2})
    assert load(folder) == ("two", 2, 2)
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1, "what an interrupted save left is gone"


def test_an_end_before_the_older_generation_is_dropped_keeps_the_newer(folder):
    shutil.copytree(generation(folder), folder / "0-old")
    assert load(folder) == ("one", 1, 1)


@pytest.mark.parametrize("name", ["global.safetensors", "progress.json", "optimizer/word"])
@pytest.mark.parametrize("content", [None, b"\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff{"])
def test_what_cannot_be_read_counts_as_nothing(folder, name, content):
    (generation(folder) / name).unlink()
    if content is not None:
        (generation(folder) / name).write_bytes(content)
    assert load(folder) is None


@pytest.mark.parametrize("pointer", [b"", b"9-gone", b"\xff"])
def test_a_pointer_that_names_nothing_counts_as_nothing(folder, pointer):
    (folder / "current").write_bytes(pointer)
    assert load(folder) is None
