"""What all data sources share: splits, filters, declared formats, bounded memory, the cache."""

import fcntl
import os
import re
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from locex.errors import DataUnavailable, InvalidConfiguration

ROWS = 400


@pytest.fixture
def folder(tmp_path):
    """The same 400 examples in every file format; x[:, 0] tells which is which."""
    x = np.random.default_rng(0).random((ROWS, 3)).astype(np.float32)
    x[:, 0] = np.arange(ROWS)
    y = np.repeat([0, 1, 2, 3], [200, 100, 80, 20])
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / "x_train.npy", x)
    np.save(folder / "y_train.npy", y)
    np.savez_compressed(folder / "data.npz", x_train=x, y_train=y)
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "data.h5", "w") as file:
        file.create_dataset("x_train", data=x, chunks=(7, 3), compression="gzip")
        file["y_train"] = y
    table = pa.table({"n": x[:, 0], "b": x[:, 1], "c": x[:, 2], "label": y})
    pq.write_table(table, folder / "train.parquet", row_group_size=150)
    lines = [f"{a},{b!r},{c!r},{label}" for (a, b, c), label in zip(x.astype(float).tolist(), y.tolist(), strict=True)]
    (folder / "train.csv").write_text("\n".join(["n,b,c,label", *lines]))
    return folder


SOURCES = {
    "npy": {},
    "npz": {},
    "hdf5": {},
    "csv": {"target": "label"},
    "parquet": {"target": "label"},
}
EACH = pytest.mark.parametrize("name", SOURCES)


@EACH
def test_all_formats_give_the_same_split(name, folder, make_source):
    data = make_source(name, folder, job_seed=5, **SOURCES[name]).load()
    reference = make_source("npy", folder, job_seed=5).load()
    for ours, theirs in ((data.train, reference.train), (data.test, reference.test)):
        np.testing.assert_array_equal(ours.x, theirs.x)
        np.testing.assert_array_equal(ours.y, theirs.y)
    assert data.format == make_source(name, folder, **SOURCES[name]).format() == reference.format
    assert (len(data.train), len(data.test)) == (320, 80)


@EACH
def test_larger_arrays_are_mapped_files_with_the_same_content(name, folder, tmp_path, make_source):
    fields = SOURCES[name] | {"stratify": True}
    small = make_source(name, folder, **fields).load()
    cache = tmp_path / "cache"
    for place in (cache, None):
        large = make_source(name, folder, cache=place, in_memory=0.001, **fields).load()
        assert isinstance(large.train.x, np.memmap)
        assert not large.train.x.flags.writeable
        for side in ("train", "test"):
            np.testing.assert_array_equal(getattr(large, side).x, getattr(small, side).x)
            np.testing.assert_array_equal(getattr(large, side).y, getattr(small, side).y)
        assert large.format == small.format
    assert sum(path.suffix == ".npy" for path in cache.rglob("*")) == 4
    assert [path.name for path in (cache / "arrays").iterdir() if path.name.startswith(".")] == []


@EACH
def test_a_stratified_split_keeps_every_classs_share(name, folder, make_source):
    data = make_source(name, folder, stratify=True, test_fraction=0.1, **SOURCES[name]).load()
    assert np.bincount(data.test.y.astype(int)).tolist() == [20, 10, 8, 2]
    assert sorted([*data.train.x[:, 0], *data.test.x[:, 0]]) == list(range(ROWS))
    other = make_source(name, folder, job_seed=1, stratify=True, test_fraction=0.1, **SOURCES[name]).load()
    assert data.test.x[:, 0].tolist() != other.test.x[:, 0].tolist()


def test_the_seed_of_the_split_may_be_the_sites_own(folder, make_source):
    first, second = (make_source("npz", folder, job_seed=job, seed=9).load() for job in (1, 2))
    assert first.test.x[:, 0].tolist() == second.test.x[:, 0].tolist()


@EACH
@pytest.mark.parametrize(
    ("op", "value", "stays"),
    [
        ("==", 2, {2}),
        (">=", 2, {2, 3}),
        ("<", 1, {0}),
        ("in", [0, 3], {0, 3}),
        ("not in", [0, 3], {1, 2}),
    ],
)
def test_filters_leave_rows_out(name, op, value, stays, folder, make_source):
    column = "label" if "target" in SOURCES[name] else "y"
    filters = [{"column": column, "op": op, "value": value}]
    data = make_source(name, folder, filters=filters, **SOURCES[name]).load()
    assert {*data.train.y.tolist(), *data.test.y.tolist()} == stays


@EACH
def test_filters_by_columns_of_x_combine(name, folder, make_source):
    column = "n" if "target" in SOURCES[name] else "0"
    filters = [{"column": column, "op": ">", "value": 9}, {"column": column, "op": "<=", "value": 19}]
    data = make_source(name, folder, filters=filters, **SOURCES[name]).load()
    assert sorted([*data.train.x[:, 0], *data.test.x[:, 0]]) == list(range(10, 20))


@EACH
def test_filters_that_leave_nothing_or_name_nothing(name, folder, make_source):
    column = "label" if "target" in SOURCES[name] else "y"
    with pytest.raises(DataUnavailable, match="there are no examples"):
        make_source(name, folder, filters=[{"column": column, "op": ">", "value": 9}], **SOURCES[name]).load()
    with pytest.raises(DataUnavailable, match="'absent'"):
        make_source(name, folder, filters=[{"column": "absent", "op": ">", "value": 9}], **SOURCES[name]).load()


def test_words_are_not_compared_with_numbers(folder, make_source):
    with pytest.raises(DataUnavailable, match=r"the filter compares 'y', which holds int64, with .'1'."):
        make_source("npy", folder, filters=[{"column": "y", "op": "==", "value": "1"}]).load()


@pytest.mark.parametrize(
    "filters",
    [
        [{"column": "y", "op": "eval", "value": 1}],
        [{"column": "y", "op": "<"}],
        [{"column": "y", "op": "<", "value": [1, 2]}],
        [{"column": "y", "op": "in", "value": [1, "a"]}],
        [{"column": "y", "op": "<", "value": 1, "then": "os.system('true')"}],
    ],
)
def test_filters_that_are_refused(filters, folder, make_source):
    with pytest.raises(InvalidConfiguration, match="/filters/0"):
        make_source("npy", folder, filters=filters)


@EACH
def test_a_declared_format_is_held_against_the_data(name, folder, make_source):
    def declared(size, **more):
        x = {"spectrum": {"size": size, "normalized": True, "unit": "nm"}}
        return {"x": {"data_types": x}, "y": {"data_types": {"binary": {"size": [], **more}}}}

    source = make_source(name, folder, format=declared([3]), **SOURCES[name])
    for told in (source.format(), source.load().format):
        assert told.x.data_types["spectrum"].model_dump() == {
            "size": [3], "dtype": "float32", "normalized": True, "unit": "nm"
        }  # fmt: skip
        assert told.y.data_types["binary"].dtype == "int64"
    for wrong in (declared([4]), declared([3], dtype="float32")):
        with pytest.raises(DataUnavailable, match="but the declared format has"):
            make_source(name, folder, format=wrong, **SOURCES[name]).format()


@EACH
def test_test_files_are_the_test_data(name, folder, make_source):
    names = {"csv": "csv", "parquet": "parquet"}
    if name in names:
        (folder / f"test.{name}").write_bytes((folder / f"train.{name}").read_bytes())
    elif name == "npy":
        for side in "xy":
            (folder / f"{side}_test.npy").write_bytes((folder / f"{side}_train.npy").read_bytes())
    fields = {} if name in {*names, "npy"} else {"x_test": "x_train", "y_test": "y_train"}
    data = make_source(name, folder, **SOURCES[name], **fields).load()
    assert (len(data.train), len(data.test)) == (ROWS, ROWS)


def test_what_was_converted_is_found_again_until_files_change(folder, tmp_path, make_source):
    def load(seed=0):
        return make_source(
            "csv", folder, cache=tmp_path / "cache", job_seed=seed, target="label", in_memory=0.001
        ).load()

    first = load().train.x.filename
    assert load().train.x.filename == first
    assert load(seed=1).train.x.filename != first
    assert load().train.x.filename == first
    state = make_source("csv", folder, target="label").state()
    (folder / "train.csv").write_text((folder / "train.csv").read_text() + "\n9,9,9,0")
    assert make_source("csv", folder, target="label").state() != state
    again = load()
    assert again.train.x.filename != first
    assert len(again.train) + len(again.test) == ROWS + 1
    assert not os.path.exists(first)  # noqa: PTH110 -- NumPy's own str


def entries(cache):
    return {path.parent for path in (cache / "arrays").rglob("x_train.npy")}


def test_what_is_kept_is_bounded_and_the_least_recently_used_goes(folder, tmp_path, make_source):
    def load(seed, cache_bytes=None):
        source = make_source(
            "csv", folder, cache=cache, cache_bytes=cache_bytes, job_seed=seed, target="label", in_memory=0
        )
        return source.load()

    cache = tmp_path / "cache"
    load(0)
    (first,) = entries(cache)
    size = sum(path.stat().st_size for path in first.iterdir())
    load(1)
    (second,) = entries(cache) - {first}
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    kept = load(0)  # used again: the other one is older now
    foreign = cache / "of another source" / "kept"
    foreign.mkdir(parents=True)

    load(2, 2 * size)

    assert first in entries(cache)
    assert second not in entries(cache)
    assert len(entries(cache)) == 2
    assert not second.parent.exists()
    assert foreign.exists()

    beyond = load(3, size - 1)
    assert isinstance(beyond.train.x, np.memmap)
    assert len(beyond.train) + len(beyond.test) == ROWS
    assert len(entries(cache)) == 2
    load(4, size)
    assert len(entries(cache)) == 1
    assert len(np.unique(kept.train.x[:, 0])) == len(kept.train)  # what is mapped outlives its entry


def test_a_damaged_entry_is_made_anew(folder, tmp_path, make_source):
    def load():
        return make_source("npz", folder, cache=tmp_path / "cache", in_memory=0).load()

    whole = np.array(load().train.x)
    (entry,) = entries(tmp_path / "cache")
    for damage in (lambda path: os.truncate(path, path.stat().st_size - 4), lambda path: path.unlink()):
        damage(entry / "x_train.npy")
        for _ in range(2):
            np.testing.assert_array_equal(load().train.x, whole)
        assert entries(tmp_path / "cache") == {entry}


def test_what_killed_jobs_left_is_swept_and_nothing_else(folder, tmp_path, make_source):
    def left(name, age):
        place = tmp_path / "cache" / "arrays" / f".making-{name}"
        place.mkdir(parents=True)
        (place / "x_all.npy").write_bytes(bytes(100))
        os.utime(place, (time.time() - age,) * 2)
        return place

    dead, young, locked = left("dead", 3600), left("young", 0), left("locked", 3600)
    lock = os.open(locked, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make_source("npz", folder, cache=tmp_path / "cache", in_memory=0).load()
    finally:
        os.close(lock)
    assert (dead.exists(), young.exists(), locked.exists()) == (False, True, True)


@pytest.mark.parametrize("name", ["npy", "npz", "csv", "parquet"])
def test_words_stay_whole_in_files(name, tmp_path, make_source):
    words, y = np.array([f"{'long ' * (number % 9)}word {number}" for number in range(60)]), np.arange(60) % 3
    np.save(tmp_path / "x_train.npy", words)
    np.save(tmp_path / "y_train.npy", y)
    np.savez(tmp_path / "data.npz", x_train=words, y_train=y)
    pq.write_table(pa.table({"words": words, "label": y}), tmp_path / "train.parquet")
    (tmp_path / "train.csv").write_text("words,label\n" + "\n".join(map("{},{}".format, words, y)))
    fields = SOURCES[name] | ({"x_kind": "text"} if "target" in SOURCES[name] else {})
    data = make_source(name, tmp_path, in_memory=0, **fields).load()
    assert isinstance(data.train.x, np.memmap)
    assert sorted([*data.train.x, *data.test.x]) == sorted(words)
    assert list(data.format.x.data_types) == ["text"]


@pytest.mark.parametrize("op", ["==", "in"])
def test_a_filter_means_the_number_as_the_array_holds_it(op, tmp_path, make_source):
    np.savez(tmp_path / "data.npz", x_train=np.array([[0.1], [0.2]] * 9, np.float32), y_train=np.arange(18))
    data = make_source("npz", tmp_path, filters=[{"column": 0, "op": op, "value": 0.1}]).load()
    assert len(data.train) + len(data.test) == 9


def test_two_jobs_at_once_convert_alike(folder, tmp_path, make_source):
    loaded, barrier = [], threading.Barrier(4)

    def job():
        source = make_source("parquet", folder, cache=tmp_path / "cache", target="label", in_memory=0.001)
        barrier.wait()
        loaded.append(source.load())

    threads = [threading.Thread(target=job) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 4
    for data in loaded:
        np.testing.assert_array_equal(data.train.x, loaded[0].train.x)
    assert sum(path.suffix == ".npy" for path in (tmp_path / "cache").rglob("*")) == 4


def test_a_cache_that_cannot_be_written_is_told(folder, tmp_path, make_source, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataUnavailable, match="cannot be written to") as caught:
        make_source("csv", folder, cache=tmp_path / "cache", target="label", in_memory=0).load()
    assert "PREPROCESSED_FOLDER" in caught.value.remedy

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(DataUnavailable, match="No space left on device"):
        make_source("csv", folder, cache=tmp_path / "other", target="label", in_memory=0).load()
    assert list((tmp_path / "other" / "arrays").iterdir()) == []


@pytest.mark.parametrize("name", [*SOURCES, "image_folder", "timeseries"])
def test_missing_files_and_links_out_of_the_folder(name, tmp_path, make_source):
    fields = SOURCES.get(name) or ({"target": 0, "window": 2} if name == "timeseries" else {})
    inside = tmp_path / "inside"
    inside.mkdir()
    for ask in ("format", "load"):
        with pytest.raises(DataUnavailable, match="is not in the data folder") as caught:
            getattr(make_source(name, inside, **fields), ask)()
        assert caught.value.remedy
    outside = tmp_path / "secret"
    outside.mkdir()
    for wanted in ("x_train.npy", "data.npz", "data.h5", "train.csv", "train.parquet", "train"):
        (inside / wanted).symlink_to(outside)
    with pytest.raises(DataUnavailable, match="leads out of the data folder"):
        make_source(name, inside, **fields).load()
    field = {"npy": "x_train", "npz": "file", "hdf5": "file"}.get(name, "train")
    with pytest.raises(InvalidConfiguration, match=re.escape("without '..'")):
        make_source(name, inside, **fields | {field: "../secret"})
