from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from locex.api import Stopped
from locex.errors import LocexError
from locex.schemas.job import TrainConfig
from locex_keras_builder.batches import BatchPlan, grouped
from locex_keras_builder.kerases import import_keras

CONFIG = TrainConfig(batch_size=16, epochs=2)


def test_training_learns(either, make_session):
    session = make_session(either)
    before = session.evaluate(CONFIG)
    first = session.fit(CONFIG, server_round=1)
    last = session.fit(TrainConfig(batch_size=16, epochs=5), server_round=2)
    after = session.evaluate(CONFIG)
    assert first.examples == 90
    assert last.metrics["loss"] < first.metrics["loss"]
    assert after.loss < before.loss
    assert after.metrics["accuracy"] > 0.9
    assert after.examples == 40


def test_evaluation_tells_what_keras_does(either, make_session, kit):
    test = kit.blobs(examples=37, seed=3)
    session = make_session(either, test=test)
    keras = import_keras(either.stem).module
    model = keras.models.load_model(either)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = model.evaluate(test.x, test.y, verbose=0, batch_size=16)
    told = session.evaluate(CONFIG)
    assert told.loss == pytest.approx(loss, rel=1e-5)
    assert told.metrics["accuracy"] == pytest.approx(accuracy)


def test_a_step_is_that_of_model_fit(either, make_session, kit):
    train = kit.blobs(examples=16)
    session = make_session(either, train=train, optimizer=kit.optimizer("adam", learning_rate=0.01))
    keras = import_keras(either.stem).module
    model = keras.models.load_model(either)
    model.layers[2].rate = session._model.layers[2].rate = 0.0
    model.compile(loss="sparse_categorical_crossentropy", optimizer=keras.optimizers.Adam(0.01))
    history = model.fit(train.x, train.y, batch_size=16, epochs=3, verbose=0, shuffle=False)
    told = session.fit(TrainConfig(batch_size=16, epochs=3), server_round=1)
    assert told.metrics["loss"] == pytest.approx(history.history["loss"][-1], rel=1e-4)
    for own, theirs in zip(session.get_parameters().values(), model.get_weights(), strict=True):
        np.testing.assert_allclose(own, theirs, atol=1e-4)


def test_the_steps_of_epochs_go_on_through_the_data():
    config = TrainConfig(batch_size=10, steps_per_epoch=3)
    plan = BatchPlan(45, config, seed=1, server_round=2)
    taken = [index.tolist() for epoch in range(4) for index in plan.epoch(epoch)]
    assert [len(batch) for batch in taken] == [10, 10, 10, 10, 5, 10, 10, 10, 10, 5, 10, 10]
    assert sorted(chain(*taken[:5])) == sorted(chain(*taken[5:10])) == list(range(45))
    assert taken[:5] != taken[5:10]
    assert BatchPlan(45, TrainConfig(batch_size=10, steps_per_epoch=9), seed=1, server_round=2).steps == 5


def test_groups_hold_batches_of_one_size_in_their_order():
    plan = BatchPlan(45, TrainConfig(batch_size=10), seed=1, server_round=2)
    expected = [batch.tolist() for batch in BatchPlan(45, TrainConfig(batch_size=10), seed=1, server_round=2).epoch(0)]
    groups = list(grouped(plan.epoch(0), lambda _: 3))
    assert [group.shape for group in groups] == [(3, 10), (1, 10), (1, 5)]
    assert [batch.tolist() for group in groups for batch in group] == expected


def test_steps_bound_the_examples_seen(mlp, make_session):
    session = make_session(mlp)
    assert session.fit(TrainConfig(batch_size=16, steps_per_epoch="2"), server_round=1).examples == 32
    assert session.fit(TrainConfig(batch_size=16, steps_per_epoch="50"), server_round=1).examples == 90


def test_order_and_drop_out_depend_on_seed_and_round(either, make_session, kit):
    # no momentum: nothing but the weights goes from one round to the next
    plain = kit.optimizer(learning_rate=0.1)
    sessions = {seed: make_session(either, seed=seed, optimizer=plain) for seed in (1, 2)}
    start = sessions[1].get_parameters()

    def trained(seed, server_round):
        sessions[seed].set_parameters(start)
        sessions[seed].fit(CONFIG, server_round=server_round)
        return sessions[seed].get_parameters()

    reference = trained(1, 1)
    assert kit.same(reference, trained(1, 1))
    assert not kit.same(reference, trained(1, 2))
    assert not kit.same(reference, trained(2, 1))


def test_parameters_are_copies_in_the_order_of_get_weights(either, make_session, kit):
    session = make_session(either)
    session.fit(CONFIG, server_round=1)
    mine = session.get_parameters()
    assert [array.shape for array in mine.values()] == [tuple(one.shape) for one in session._model.weights]
    assert any("moving_mean" in name for name in mine)
    assert all(array.flags.c_contiguous and array.flags.writeable for array in mine.values())
    arrived = {name: array.astype(np.float64) for name, array in mine.items()}
    for array in arrived.values():
        array.setflags(write=False)
    other = make_session(either)
    other.set_parameters(arrived)
    assert kit.same(mine, other.get_parameters())
    next(iter(mine.values()))[:] += 1
    assert not kit.same(mine, session.get_parameters())


def test_integers_take_the_nearest_of_an_average(tmp_path, make_session):
    keras = import_keras("keras").module
    model = keras.Sequential([keras.Input((8,)), keras.layers.Normalization(), keras.layers.Dense(3)])
    model.save(tmp_path / "m.keras")
    session = make_session(tmp_path / "m.keras")
    parameters = session.get_parameters()
    (name,) = [name for name, array in parameters.items() if array.dtype.kind in "iu"]
    arrived = {key: array.astype(np.float32) for key, array in parameters.items()}
    arrived[name] = arrived[name] + np.float32(6.9999)
    session.set_parameters(arrived)
    assert session.get_parameters()[name] == parameters[name] + 7
    assert session.get_parameters()[name].dtype == parameters[name].dtype


def test_a_stop_ends_training_between_batches(mlp, make_session, kit):
    answers = iter([False, False, True])
    session = make_session(mlp, should_stop=lambda: next(answers))
    before = session.get_parameters()
    with pytest.raises(Stopped):
        session.fit(TrainConfig(batch_size=8, epochs=9), server_round=1)
    assert not kit.same(before, session.get_parameters())


def test_divergence_is_an_error(either, make_session, kit):
    session = make_session(either, optimizer=kit.optimizer(learning_rate=1e30))
    with pytest.raises(LocexError, match="diverged") as caught:
        session.fit(TrainConfig(batch_size=16, epochs=4), server_round=1)
    assert caught.value.error_code == "training-diverged"
    assert "learning rate" in caught.value.remedy


def test_fedprox_adds_the_gradient_of_its_term(either, make_session, kit):
    import tensorflow as tf

    train = kit.blobs(examples=16)
    session = make_session(either, train=train, optimizer=kit.optimizer(learning_rate=0.1))
    keras = import_keras(either.stem).module
    model = keras.models.load_model(either)
    model.layers[2].rate = session._model.layers[2].rate = 0.0
    start = [tf.constant(weight) for weight in model.trainable_variables]
    loss_of = keras.losses.SparseCategoricalCrossentropy()
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = loss_of(train.y, model(train.x, training=True)) + tf.add_n(model.losses)
            for weight, anchor in zip(model.trainable_variables, start, strict=True):
                loss += 0.5 * 0.5 * tf.reduce_sum(tf.square(tf.convert_to_tensor(weight) - anchor))
        weights = [tf.convert_to_tensor(one) for one in model.trainable_variables]
        variables = [one.value if keras.__name__ == "keras" else one for one in model.trainable_variables]
        gradients = tape.gradient(loss, variables)
        for weight, value, gradient in zip(model.trainable_variables, weights, gradients, strict=True):
            weight.assign(value - 0.1 * gradient)
    told = session.fit(TrainConfig(batch_size=16, epochs=3), server_round=1, proximal_mu=0.5)
    for own, theirs in zip(session.get_parameters().values(), model.weights, strict=True):
        np.testing.assert_allclose(own, theirs.numpy(), atol=1e-4)
    assert told.metrics["loss"] < float(loss)


def test_fedprox_holds_near_the_weights_of_its_round(mlp, make_session, kit):
    session = make_session(mlp, optimizer=kit.optimizer(learning_rate=0.005))
    config = TrainConfig(batch_size=16, epochs=5)
    for server_round in (1, 2):
        shifted = {name: array + server_round for name, array in session.get_parameters().items()}
        session.set_parameters(shifted)
        session.fit(config, server_round=server_round, proximal_mu=100.0)
        moved = session.get_parameters()
        assert sum(float(np.square(moved[name] - shifted[name]).sum()) for name in moved) < 1.0


def test_another_entry_s_learning_rate_is_followed(either, make_session, kit):
    # the first entry's rate was injected by the caller, if at all: the optimizer's own 0.1 stands
    optimizers, seen = kit.Optimizers(learning_rate=0.1), []
    entries = [TrainConfig(batch_size=90, learning_rate=rate) for rate in (0.3, None, 0.3, 0.2, 0.2)]
    session = make_session(either, optimizer=optimizers, config=entries[0])
    for server_round, entry in enumerate(entries, start=1):
        session.fit(entry, server_round=server_round)
        seen.append(float(optimizers.made.learning_rate))
    assert seen == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.2])
    optimizers.made.learning_rate = 0.05
    session.fit(TrainConfig(batch_size=90, learning_rate=0.4), server_round=6)
    assert float(optimizers.made.learning_rate) == pytest.approx(0.1)


def test_validation_is_measured_where_the_callback_watches_it(either, make_session, kit):
    session = make_session(either, scheduler=kit.scheduler("reducelronplateau", monitor="val_accuracy"))
    told = session.fit(CONFIG, server_round=1).metrics
    assert set(told) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    # measured before an average of weights or the best weights took the last ones' place
    assert told["val_loss"] == pytest.approx(session.evaluate(CONFIG).loss)
    watching_training = make_session(either, scheduler=kit.scheduler("reducelronplateau", monitor="loss"))
    assert set(watching_training.fit(CONFIG, server_round=1).metrics) == {"loss", "accuracy"}


def test_callbacks_of_batches_are_called_for_each(mlp, make_session):
    calls = []

    def scheduler(target):
        class Noting(target.keras.module.callbacks.Callback):
            def on_train_begin(self, logs=None):
                calls.append(("begin", self.params["steps"]))

            def on_train_batch_end(self, batch, logs=None):
                calls.append((batch, logs["loss"]))

            def on_epoch_end(self, epoch, logs=None):
                calls.append(("epoch", epoch))

        return Noting()

    session = make_session(mlp, scheduler=scheduler)
    for server_round in (1, 2):
        session.fit(TrainConfig(batch_size=32), server_round=server_round)
    assert [call[0] for call in calls] == ["begin", 0, 1, 2, "epoch"] * 2
    assert [call[1] for call in calls if call[0] == "epoch"] == [0, 1]
    assert calls[0] == ("begin", 3)
