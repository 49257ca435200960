"""What core gives to mechanisms that act in training, and to sessions that let them."""

from __future__ import annotations

import numpy as np
import pytest

from locex.api import Dataset, PrivateSession, Stage
from locex.artefacts.batches import one_by_one, steps_of_an_epoch
from locex.schemas.job import TrainConfig, chosen_training
from locex.testing.contract.privacy import try_mechanism


def test_an_augmentation_one_by_one_cannot_mix_examples():
    def mixed(batch, generator):
        return Dataset(batch.x - batch.x.mean(0) + generator.random(), batch.y[::-1])

    batch = Dataset(np.arange(6, dtype=np.float32).reshape(3, 2), np.array([1, 2, 3]))

    found, again = (one_by_one(mixed)(batch, np.random.default_rng(0)) for _ in range(2))

    drawn = found.x[:, 0]
    np.testing.assert_array_equal(found.x, np.repeat(drawn, 2).reshape(3, 2))
    assert len({*drawn, *again.x[:, 0]}) == 6  # no draw is that of the generator's seed
    np.testing.assert_array_equal(found.y, batch.y)
    empty = Dataset(batch.x[:0], batch.y[:0])
    assert one_by_one(mixed)(empty, np.random.default_rng(0)) is empty


@pytest.mark.parametrize(("wanted", "steps"), [(None, 5), (3, 3), (9, 5)])
def test_an_epoch_has_no_more_steps_than_the_data_gives(wanted, steps):
    assert steps_of_an_epoch(41, TrainConfig(batch_size=10, steps_per_epoch=wanted)) == steps


def test_the_servers_fit_configuration_chooses_an_entry():
    entries = [TrainConfig(config_id="a"), TrainConfig(config_id="b", epochs=2)]

    assert chosen_training(entries, {"config_id": "b"}) is entries[1]
    assert chosen_training(entries, {"config_id": "c"}) is entries[0]
    assert chosen_training(entries, {}) is entries[0]


def test_a_session_is_private_by_its_members():
    def member(self):
        """Return nothing."""

    names = ("get_parameters", "set_parameters", "fit", "evaluate", "save_state", "load_state", "export")
    session = {"signature": None} | dict.fromkeys(names, member)
    led = session | dict.fromkeys(("differentiable", "take_gradients_from"), member)

    assert isinstance(type("Led", (), led)(), PrivateSession)
    assert not isinstance(type("Session", (), session)(), PrivateSession)


def test_the_kit_tries_no_mechanism_that_needs_a_session():
    class Trained:
        stage = Stage.TRAIN

    verdict = try_mechanism(Trained())

    assert not verdict.faults
    assert "there is no session here" in verdict.notes[0]
