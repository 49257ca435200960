from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from locex.api import Dataset
from locex.errors import FormatMismatch
from locex.schemas.job import TrainConfig
from locex_torch_builder import examples as module
from locex_torch_builder.artefact import write_architecture
from locex_torch_builder.examples import PlacedExamples, ReadExamples

CONFIG = TrainConfig(batch_size=16, epochs=2)


def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name in left)


class Noise:
    """The random end of a pipeline, which notes the batches that it was given."""

    def __init__(self):
        self.draws = []
        self.batches = []

    def __call__(self, batch, generator):
        noise = generator.normal(scale=0.1, size=batch.x.shape)
        self.draws.append(float(noise.sum()))
        self.batches.append(batch)
        return Dataset(batch.x + noise, batch.y)


def test_every_training_batch_is_augmented_and_no_other(mlp, make_session):
    noise = Noise()
    session = make_session(mlp, augment=noise)
    at_creation = len(noise.draws)
    session.evaluate(CONFIG)
    assert len(noise.draws) == at_creation
    session.fit(CONFIG, server_round=1)
    draws = noise.draws[at_creation:]
    assert len(draws) == len(set(draws)) == 2 * 6
    assert [len(batch) for batch in noise.batches[at_creation:]] == [16, 16, 16, 16, 16, 10] * 2
    assert all(isinstance(batch.x, np.ndarray) and batch.y.ndim == 1 for batch in noise.batches)
    session.fit(CONFIG, server_round=2)
    assert not set(draws) & set(noise.draws[at_creation + 12 :])


def test_draws_depend_on_seed_and_round_alone(mlp, make_session):
    def trained(seed, server_round):
        noise = Noise()
        session = make_session(mlp, augment=noise, seed=seed)
        session.fit(CONFIG, server_round=server_round)
        return noise.draws[1:], session.get_parameters()

    draws, weights = trained(1, 3)
    again, weights_again = trained(1, 3)
    assert draws == again
    assert same(weights, weights_again)
    assert not set(draws) & set(trained(2, 3)[0])
    assert not set(draws) & set(trained(1, 4)[0])


def test_augmented_as_nothing_is_the_same_training(mlp, make_session):
    plain, read = make_session(mlp), make_session(mlp, augment=lambda batch, generator: batch)
    assert plain.fit(CONFIG, server_round=1) == read.fit(CONFIG, server_round=1)
    assert same(plain.get_parameters(), read.get_parameters())


def test_a_random_end_may_change_sizes_and_targets(mlp, make_session, kit):
    wide = kit.blobs(size=(12,))

    def cropped_and_mixed(batch, generator):
        start, share = generator.integers(0, 5), generator.beta(0.2, 0.2)
        rows = np.eye(3)[batch.y]
        x = batch.x[:, start : start + 8]
        return Dataset(share * x + (1 - share) * x[::-1], share * rows + (1 - share) * rows[::-1])

    session = make_session(mlp, train=wide, augment=cropped_and_mixed)
    told = session.fit(TrainConfig(batch_size=16, epochs=3), server_round=1)
    assert np.isfinite(told.metrics["loss"])
    assert told.examples == 90


def test_what_does_not_fit_after_the_random_end_is_refused(mlp, make_session):
    with pytest.raises(FormatMismatch):
        make_session(mlp, augment=lambda batch, _: Dataset(batch.x[:, :5], batch.y))
    with pytest.raises(FormatMismatch):
        make_session(mlp, augment=lambda batch, _: Dataset(batch.x, batch.y + 3))


@pytest.fixture
def mapped(tmp_path, kit):
    """A data set as memory-mapped files of float64."""

    def make(data, name, order="C"):
        paths = tmp_path / f"{name}_x.npy", tmp_path / f"{name}_y.npy"
        np.save(paths[0], np.asarray(data.x, np.float64, order=order))
        np.save(paths[1], data.y)
        return Dataset(*(np.load(path, mmap_mode="r") for path in paths))

    return make


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_mapped_files_are_read_batch_by_batch(order, mlp, make_session, kit, mapped, monkeypatch):
    plain = make_session(mlp)
    monkeypatch.setattr(module, "COPIED", 1000)
    fields = {"train": mapped(kit.blobs(), "train", order), "test": mapped(kit.blobs(examples=40, seed=5), "test")}
    read = make_session(mlp, **fields)
    assert isinstance(read._train.examples, ReadExamples)
    assert isinstance(read._test.examples, ReadExamples)
    assert plain.fit(CONFIG, server_round=1) == read.fit(CONFIG, server_round=1)
    assert plain.evaluate(CONFIG) == read.evaluate(CONFIG)
    assert same(plain.get_parameters(), read.get_parameters())


def test_small_mapped_files_are_placed(mlp, make_session, kit, mapped):
    assert isinstance(make_session(mlp, train=mapped(kit.blobs(), "train"))._train.examples, PlacedExamples)


@pytest.mark.parametrize(
    ("free", "copied", "kind"), [(2**30, 2**28, "Placed"), (4000, 2**28, "Read"), (2**30, 9, "Read")]
)
def test_data_go_to_a_gpu_where_they_fit_it_and_memory(free, copied, kind, kit, mapped, monkeypatch):
    monkeypatch.setattr(module, "COPIED", copied)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: tensor)
    examples = module.examples_of(mapped(kit.blobs(), "train"), lambda y: y, torch.device("cuda"))
    assert type(examples).__name__ == f"{kind}Examples"


def test_targets_of_mapped_files_are_checked_when_they_are_read(mlp, make_session, kit, mapped, monkeypatch):
    monkeypatch.setattr(module, "COPIED", 100)
    blobs = kit.blobs()
    targets = blobs.y.copy()
    targets[50] = 3
    session = make_session(mlp, train=mapped(Dataset(blobs.x, targets), "train"))
    with pytest.raises(FormatMismatch, match="class indices"):
        session.fit(CONFIG, server_round=1)


def test_tensors_share_the_memory_of_arrays(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    array = np.load(tmp_path / "x.npy", mmap_mode="r+")
    tensor = module.as_tensor(array)
    array[1, 1] = 99
    assert tensor[1, 1] == 99


@pytest.fixture
def little_memory():
    """Let this process allocate no more than 400 MB beyond what it has; files that it maps do not count."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    (used,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (int(used.split()[1]) * 1024 + 400_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_file_larger_than_memory_is_trained_on(dtype, tmp_path, make_session, little_memory):
    examples = 2**31 // (784 * np.dtype(dtype).itemsize)
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", dtype, (examples, 784)).flush()  # a sparse file of 2 GiB
    data = Dataset(np.load(tmp_path / "x.npy", mmap_mode="r"), np.zeros(examples, np.uint8))
    with pytest.raises(MemoryError):
        np.array(data.x)
    write_architecture(tmp_path / "m.zip", architecture="mlp", config={"input_size": [784], "num_classes": 3})
    test = Dataset(data.x[:50], data.y[:50])
    session = make_session(tmp_path / "m.zip", train=data, test=test)
    assert session.fit(TrainConfig(batch_size=16, steps_per_epoch=20), server_round=1).examples == 320
    assert session.evaluate(CONFIG).metrics["accuracy"] == 1.0
