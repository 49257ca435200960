"""Data from the source to the model: pipelines that learn and draw, and the cache of what they made."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import numpy as np
import pytest

from locex.api import Dataset, Stopped
from locex.errors import BrokenPlugin, FormatMismatch, LocexError, StepFailed
from locex.jobs.site import fill_in
from locex.pipelines.saved import SavedPipeline, UnsavedPipeline
from locex.plugins.catalog import read_catalog
from locex.schemas.job import parse_job
from locex.settings import SiteSettings
from locex.worker import pipeline, prepared, rows
from locex.worker.data import prepare
from locex.worker.plan import make_plan
from locex.worker.preparation import Surroundings

JOB = {"server_address": "h:1", "model_name": "m", "model_version": "1", "data": {"source": "rows"}}


class Site:
    """A data folder of 100 rows, and `prepare` for jobs over it."""

    def __init__(self, folder, plugin_folder, monkeypatch):
        self.folder, self._plugins = folder, plugin_folder
        self.cache = folder / "cache"
        self.warnings = []
        (folder / "data").mkdir()
        (folder / "run").mkdir()
        self.write(np.arange(400, dtype=np.float32).reshape(100, 4))
        for name in ("LOADS", "FITS"):
            monkeypatch.setenv(f"FIXTURE_{name}", str(folder / name))

    def write(self, x):
        np.save(self.folder / "data" / "x.npy", x)
        np.save(self.folder / "data" / "y.npy", np.arange(len(x)) % 3)

    def prepare(self, train, test=None, **settings):
        return self.prepared(train, test, **settings).data

    def prepared(self, train, test=None, *, should_stop=lambda: False, seed=None, **settings):
        transformations = {"train": train, "test": train if test is None else test}
        job, _ = parse_job(JOB | {"transformations": transformations, "seed": seed})
        site = SiteSettings(data_folder=self.folder / "data", **{"preprocessed_folder": self.cache} | settings)
        job, _ = fill_in(job, site)
        catalog = read_catalog(folders=[self._plugins])
        plan = make_plan(job, "tiny", catalog, site, kinds=("data", "transform"))
        around = Surroundings(self.folder / "run", {}, should_stop, self.warnings.append)
        return prepare(plan, site, around)

    def noted(self, name):
        path = self.folder / name
        return path.read_text().split("\n")[:-1] if path.exists() else []

    @property
    def entries(self):
        return sorted(path.name for path in (self.cache / "pipelines").iterdir())


@pytest.fixture
def site(tmp_path, plugin_folder, monkeypatch):
    monkeypatch.syspath_prepend(plugin_folder)
    return Site(tmp_path, plugin_folder, monkeypatch)


def step(name, **parameters):
    return {"id": name, "parameters": parameters}


# --- steps that learn, steps that draw --------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False])
def test_test_data_are_transformed_with_what_was_learned_from_training_data(site, kept):
    data = site.prepare([step("scale", factor=2), step("centre")], **({} if kept else {"preprocessed_folder": None}))
    assert site.noted("FITS") == ["80 319.0"]  # once, on the training split as it is after the first step
    assert data.train.x.mean() == pytest.approx(0, abs=1e-3)
    assert data.test.x.mean() == pytest.approx(2 * 359.5 - 319, abs=1e-3)


def test_steps_that_learned_from_training_data_are_told_from_the_cache_too(site):
    for _ in range(2):
        assert site.prepared([step("scale", factor=2), step("centre")], [step("scale")] * 2).learned == (
            "step 2 (centre)",
        )
    assert site.prepared([step("scale")], [step("centre")]).learned == ()


def test_a_step_with_other_parameters_learns_for_itself_from_training_data(site):
    data = site.prepare([step("centre")], [step("scale"), step("centre", to=1), step("centre")])
    assert site.noted("FITS") == ["80 159.5", "80 159.5"]
    assert data.test.x.mean() == pytest.approx(359.5 - 158.5 - 159.5)


def test_steps_from_the_first_that_draws_on_are_left_to_the_batches(site):
    data = site.prepare(
        [step("scale", factor=2), step("jitter", width=5), step("scale", repeat=2)],
        test=[step("scale", factor=2), step("jitter", width=5), step("scale", repeat=2)],
    )
    assert data.train.x.shape == (80, 4)
    assert data.train.x[1, 1] == 10
    assert data.test.x.shape == (20, 8)
    assert data.test.x[0, 0] == 640  # test data never meet a draw
    assert data.format.x.data_types["tabular"].size == [8]
    batch = Dataset(data.train.x[:3], data.train.y[:3])
    first, second = (data.augment(batch, np.random.default_rng(1)).x for _ in range(2))
    assert first.shape == (3, 8)
    assert np.array_equal(first, second)
    assert not np.allclose(first[:, :4], batch.x)
    assert not np.array_equal(first, data.augment(batch, np.random.default_rng(2)).x)


def test_a_step_may_learn_behind_one_that_draws(site):
    both = [step("jitter", width=100), step("centre")]
    data = site.prepare(both)
    again = site.prepare(both)  # from the cache; what the batches need is learned anew
    fits = site.noted("FITS")
    assert len(fits) == 2
    assert fits[0] == fits[1]
    assert fits[0] != "80 159.5"
    assert np.array_equal(data.test.x, again.test.x)
    assert data.test.x.mean() == pytest.approx(359.5 - float(fits[0].split()[1]), abs=0.1)


def test_without_a_step_that_draws_there_is_nothing_left_for_batches(site):
    assert site.prepare([step("scale")]).augment is None


# --- steps that break their contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "error", "part"),
    [
        ("mutate", StepFailed, "raised ValueError while it transformed: assignment destination is read-only"),
        ("raise", StepFailed, "raised KeyError while it transformed: 'nothing is right'"),
        ("exit", StepFailed, "raised SystemExit while it transformed: 3"),
        ("length", StepFailed, "gave 79 inputs and 80 targets for 80 examples"),
        ("fewer", StepFailed, "gave 79 inputs and 79 targets for 80 examples"),
        ("type", StepFailed, "not a Dataset"),
        ("list", StepFailed, "gave list as x"),
        ("rank", FormatMismatch, "gave x with size [4, 1] instead of [4]"),
        ("dtype", FormatMismatch, "gave x with type float16 instead of float32"),
        ("format", StepFailed, "gave dict as its format"),
        ("raise in format", StepFailed, "raised KeyError over the format: 'no such kind'"),
        ("hollow", BrokenPlugin, "its step has no needs, transform_format, transform_data"),
    ],
)
def test_a_step_that_breaks_its_contract_is_named(site, how, error, part):
    with pytest.raises(error) as caught:
        site.prepare([step("scale"), step("hostile", how=how)])
    assert part in caught.value.message
    assert "hostile" in caught.value.message
    assert error is BrokenPlugin or "step 2 (hostile)" in caught.value.message
    assert not list(site.cache.glob("pipelines/*"))
    assert np.load(site.folder / "data" / "x.npy")[0, 1] == 1


def test_a_fault_in_a_batch_is_named_too(site):
    data = site.prepare([step("jitter"), step("hostile", how="rank")], test=[])
    with pytest.raises(FormatMismatch, match=r"step 2 \(hostile\) gave x"):
        data.augment(data.train, np.random.default_rng(1))


# --- pieces -----------------------------------------------------------------------------------------------------------


def test_large_data_go_through_in_pieces_into_files(site, monkeypatch):
    steps = [step("scale", factor=2), step("centre"), step("scale", repeat=3)]
    whole = site.prepare(steps, preprocessed_folder=None)
    monkeypatch.setattr(pipeline, "_PIECE_ROWS", 7)
    monkeypatch.setattr(rows, "_IN_MEMORY", 100)
    for settings in ({"preprocessed_folder": None}, {}, {}):
        pieces = site.prepare(steps, **settings)
        for one, other in ((whole.train, pieces.train), (whole.test, pieces.test)):
            assert isinstance(other.x, np.memmap)
            assert np.allclose(one.x, other.x, atol=1e-3)
            assert np.array_equal(one.y, other.y)
    assert list((site.folder / "run").iterdir()) == []  # files without a name
    assert len(site.entries) == 1
    assert sorted(path.name for path in (site.cache / "pipelines" / site.entries[0]).iterdir()) == [
        "manifest.json", "test_x", "test_y", "train_x", "train_y"
    ]  # fmt: skip


def test_a_job_can_be_stopped_while_its_data_are_prepared(site):
    with pytest.raises(Stopped):
        site.prepare([step("scale")], should_stop=lambda: True)
    assert site.entries == []


# --- the cache --------------------------------------------------------------------------------------------------------


def test_the_next_job_finds_what_the_last_one_prepared(site):
    first = site.prepare([step("centre")])
    second = site.prepare([step("centre")])
    assert site.noted("LOADS") == ["loaded"]
    assert site.noted("FITS") == ["80 159.5"]
    assert np.array_equal(first.train.x, second.train.x)
    assert np.array_equal(first.test.y, second.test.y)
    assert not second.train.x.flags.writeable
    assert oct((site.cache / "pipelines").stat().st_mode)[-3:] == "700"


@pytest.mark.parametrize("change", ["data", "parameters", "step", "seed", "test", "split", "source"])
def test_whatever_changes_makes_data_anew(site, change, tmp_path):
    site.prepare([step("scale", factor=2)])
    arguments = {"train": [step("scale", factor=2)]}
    if change == "data":
        site.write(np.ones((100, 4), np.float32))
    elif change == "parameters":
        arguments["train"] = [step("scale", factor=3)]
    elif change == "step":
        arguments["train"] = [step("scale", factor=2), step("scale")]
    elif change == "seed":
        arguments["seed"] = 7
    elif change == "test":
        arguments["test"] = [step("scale", factor=1)]
    elif change == "split":
        (site.folder / "data" / "deep").mkdir()
        (site.folder / "data" / "deep" / "file").touch()
    else:
        (site.folder / "data" / "x.npy").touch()
    site.prepare(**arguments)
    assert len(site.noted("LOADS")) == 2
    assert len(site.entries) == 2


def test_steps_that_only_batches_meet_do_not_count(site):
    site.prepare([step("scale"), step("jitter", width=1)], test=[step("scale")])
    site.prepare([step("scale"), step("jitter", width=2)], test=[step("scale")])
    assert site.noted("LOADS") == ["loaded"]


@pytest.mark.parametrize("damage", ["torn", "lost", "manifest"])
def test_a_damaged_entry_is_made_anew(site, damage):
    whole = site.prepare([step("scale", factor=2)])
    expected = np.array(whole.train.x)
    (entry,) = (site.cache / "pipelines").iterdir()
    if damage == "torn":
        with (entry / "train_x").open("r+b") as file:
            file.truncate(100)
    elif damage == "lost":
        (entry / "test_y").unlink()
    else:
        (entry / "manifest.json").write_text('{"arrays": ')
    assert np.array_equal(site.prepare([step("scale", factor=2)]).train.x, expected)
    assert len(site.noted("LOADS")) == 2
    site.prepare([step("scale", factor=2)])
    assert len(site.noted("LOADS")) == 2


def test_two_jobs_at_once_share_one_entry(site, monkeypatch):
    barrier, found = threading.Barrier(2), []
    keep = prepared.PreparedCache.keep

    def keep_together(*arguments):
        barrier.wait(20)
        return keep(*arguments)

    monkeypatch.setattr(prepared.PreparedCache, "keep", keep_together)
    jobs = [threading.Thread(target=lambda: found.append(site.prepare([step("centre")]))) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(site.entries) == 1
    assert np.array_equal(found[0].train.x, found[1].train.x)
    assert site.warnings == []


def test_data_that_change_while_they_are_read_are_not_kept(site, monkeypatch):
    load = np.load

    def load_and_change(path, **arguments):
        array = load(path, **arguments)
        if site.noted("LOADS"):
            (site.folder / "data" / "x.npy").touch()
        return array

    monkeypatch.setattr(np, "load", load_and_change)
    assert len(site.prepare([step("scale")]).train) == 80
    assert site.entries == []


def test_the_least_recently_used_entry_goes_first(site, monkeypatch):
    entry = 100 * (16 + 8) + 1000
    monkeypatch.setattr("locex.worker.preparation._MIB", 1)
    for factor in (1, 2, 1, 3):
        data = site.prepare([step("scale", factor=factor)], preprocessed_mb=2 * entry)
    assert len(site.entries) == 2
    assert len(site.noted("LOADS")) == 3
    site.prepare([step("scale", factor=1)], preprocessed_mb=2 * entry)  # used after 2, so that 2 went
    assert len(site.noted("LOADS")) == 3
    big = site.prepare([step("scale", factor=4)], preprocessed_mb=100)
    assert site.entries == []
    assert big.train.x[1, 1] == 20  # what a job has open it keeps
    assert data.train.x[1, 1] == 15


def test_an_entry_that_alone_is_too_large_costs_no_other(site, monkeypatch):
    monkeypatch.setattr("locex.worker.preparation._MIB", 1)
    site.prepare([step("scale")], preprocessed_mb=10_000)
    (kept,) = site.entries
    site.write(np.zeros((1000, 4), np.float32))
    assert len(site.prepare([step("scale")], preprocessed_mb=10_000).train) == 800
    assert site.entries == [kept]


def test_a_full_disk_costs_only_the_cache(site, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prepared, "write", full)
    data = site.prepare([step("centre")])
    assert data.train.x.mean() == pytest.approx(0, abs=1e-3)
    assert "No space left on device" in site.warnings[0]
    assert site.entries == []


def test_a_full_disk_amid_a_file_costs_only_the_cache(site, monkeypatch):
    monkeypatch.setattr(rows, "_IN_MEMORY", 100)
    monkeypatch.setattr("locex.worker.preparation.new_file", lambda _: Path("/dev/full").open("wb", buffering=0))  # noqa: SIM115 -- it is full
    data = site.prepare([step("scale"), step("centre")])
    assert data.train.x.mean() == pytest.approx(0, abs=1e-3)
    assert site.noted("FITS") == ["80 159.5"]
    assert len(site.warnings) == 1
    assert site.entries == []


def test_a_folder_that_cannot_be_written_costs_only_the_cache(site):
    site.cache.write_text("not a folder")
    assert len(site.prepare([step("scale")]).train) == 80
    assert "not kept" in site.warnings[0]


def test_what_a_dead_job_left_is_swept(site, monkeypatch):
    left = site.cache / "pipelines" / ".building-left"
    left.mkdir(parents=True)
    (left / "train_x").touch()
    site.prepare([step("scale", factor=1)])
    assert left.exists()  # it may be a job that has just begun
    monkeypatch.setattr("locex.scratch._YOUNG", -1)
    site.prepare([step("scale", factor=2)])
    assert not left.exists()


def test_without_steps_there_is_nothing_to_keep(site):
    assert len(site.prepare([], []).train) == 80
    assert not (site.cache / "pipelines").exists()


def test_no_test_data_are_data_too(site, monkeypatch):
    monkeypatch.setattr(pipeline, "_PIECE_ROWS", 7)
    site.write(np.zeros((1, 4), np.float32)[:0])
    with pytest.raises(LocexError, match="no training examples"):
        site.prepare([step("scale")])
    site.write(np.ones((3, 4), np.float32)[:1])
    with pytest.raises(LocexError, match="no training examples"):
        site.prepare([step("scale")])


# --- what was learnt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False])
def test_what_steps_learnt_is_known_for_cached_data_too(site, kept):
    both = [step("scale", factor=2), step("keeping_centre")]
    pipelines = []
    for _ in range(2):
        made = site.prepared(both, **({} if kept else {"preprocessed_folder": None}))
        pipelines.append(SavedPipeline.of(made.steps, made.trail[0][1]))
    assert len(site.noted("FITS")) == (1 if kept else 2)
    assert pipelines[0] == pipelines[1]
    assert [one.id for one in pipelines[0].steps] == ["scale", "keeping_centre"]
    assert pipelines[0].steps[0].parameters == {"factor": 2.0, "repeat": 1}
    assert pipelines[0].steps[1].state["mean"].array().tolist() == [319.0]


def test_a_step_that_keeps_nothing_is_no_pipeline_to_serve_with(site):
    made = site.prepared([step("centre")])
    with pytest.raises(UnsavedPipeline, match=r"step 1 \(centre\) of the test pipeline learns from training data"):
        SavedPipeline.of(made.steps, made.trail[0][1])


def test_steps_that_draw_are_no_part_of_what_serves(site):
    made = site.prepared([step("scale"), step("jitter", width=1)])
    assert [one.id for one in SavedPipeline.of(made.steps, made.trail[0][1]).steps] == ["scale"]
