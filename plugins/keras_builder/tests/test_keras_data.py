from __future__ import annotations

import numpy as np
import pytest

from locex.api import Dataset
from locex.errors import DataUnavailable, FormatMismatch
from locex.schemas.job import TrainConfig
from locex_keras_builder.artefact import write_architecture

CONFIG = TrainConfig(batch_size=16, epochs=2)


@pytest.mark.parametrize(
    ("x", "y", "fields"),
    [
        ((9,), np.zeros(6, int), {}),
        ((8, 1), np.zeros(6, int), {}),
        ((8,), np.full(6, 3), {}),
        ((8,), np.zeros((6, 4)), {}),
        ((8,), np.zeros(5, int), {}),
    ],
)
def test_data_that_does_not_fit_is_refused(x, y, fields, mlp, make_session):
    with pytest.raises(FormatMismatch) as caught:
        make_session(mlp, train=Dataset(np.zeros((6, *x)), y), **fields)
    assert caught.value.remedy


def test_without_data_nothing_is_trained(mlp, make_session):
    empty = Dataset(np.zeros((0, 8)), np.zeros(0, int))
    session = make_session(mlp, train=empty, test=empty)
    with pytest.raises(DataUnavailable):
        session.fit(CONFIG, server_round=1)
    with pytest.raises(DataUnavailable):
        session.evaluate(CONFIG)


def test_data_on_disk_train_as_data_in_memory(mlp, tmp_path, make_session, kit):
    train = kit.blobs()
    np.save(tmp_path / "x.npy", train.x)
    on_disk = Dataset(np.load(tmp_path / "x.npy", mmap_mode="r"), train.y)
    sessions = [make_session(mlp, train=data) for data in (train, on_disk)]
    for session in sessions:
        session.fit(CONFIG, server_round=1)
    assert kit.same(*(session.get_parameters() for session in sessions))


def test_other_types_of_input_are_cast(mlp, make_session, kit):
    train = kit.blobs()
    as_float64 = Dataset(train.x.astype(np.float64), train.y.astype(np.int16))
    sessions = [make_session(mlp, train=data) for data in (train, as_float64)]
    for session in sessions:
        session.fit(CONFIG, server_round=1)
    assert kit.same(*(session.get_parameters() for session in sessions))


def test_training_batches_are_augmented_and_no_others(mlp, make_session, kit):
    seen = []

    def augment(batch, generator):
        seen.append((len(batch), float(generator.random())))
        return Dataset(batch.x + generator.normal(size=batch.x.shape), batch.y)

    session = make_session(mlp, augment=augment, optimizer=kit.optimizer(learning_rate=0.1))
    session.evaluate(CONFIG)
    assert not seen
    start = session.get_parameters()

    def trained(server_round):
        seen.clear()
        session.set_parameters(start)
        session.fit(CONFIG, server_round=server_round)
        return session.get_parameters(), list(seen)

    first, draws = trained(1)
    assert [count for count, _ in draws] == [16, 16, 16, 16, 16, 10] * 2
    assert len({draw for _, draw in draws}) == 12
    again, drawn_again = trained(1)
    assert kit.same(first, again)
    assert drawn_again == draws
    assert trained(2)[1] != draws


def test_images_train(tmp_path, make_session, kit):
    config = {"input_size": [8, 8], "num_classes": 3, "batch_norm": True, "dropout": 0.1, "channels": [4]}
    write_architecture(tmp_path / "m.zip", architecture="cnn", config=config)
    data = kit.blobs(size=(8, 8))
    session = make_session(
        tmp_path / "m.zip", train=data, test=data, optimizer=kit.optimizer("adam", learning_rate=0.01)
    )
    session.fit(TrainConfig(batch_size=16, epochs=8), server_round=1)
    assert session.evaluate(CONFIG).metrics["accuracy"] > 0.9
