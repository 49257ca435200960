"""A session trains as ``compile()`` and ``fit()`` of its Keras by hand: same weights for the same order of batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from locex.schemas.job import TrainConfig
from locex_keras_builder.batches import BatchPlan
from locex_keras_builder.kerases import import_keras, import_tensorflow
from locex_keras_builder.saved_model import write_saved_model

KERASES = ["keras", "tf_keras"]
OPTIMIZERS = {
    "sgd": ("SGD", {"momentum": 0.9, "nesterov": True, "clipvalue": 0.05}),
    "rmsprop": ("RMSprop", {"centered": True, "momentum": 0.5, "weight_decay": 0.01}),
    "adam": ("Adam", {"learning_rate": 0.005, "amsgrad": True, "global_clipnorm": 0.1}),
    "adadelta": ("Adadelta", {"learning_rate": 1.0, "rho": 0.8}),
    "adagrad": ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.2}),
    "nadam": ("Nadam", {"beta_1": 0.8, "weight_decay": 0.01}),
    "adamax": ("Adamax", {"beta_2": 0.9, "clipnorm": 0.1}),
    "ftrl": ("Ftrl", {"learning_rate": 0.1, "l1_regularization_strength": 0.01, "beta": 0.1}),
}
CALLBACKS = {
    "earlystopping": ("EarlyStopping", {"monitor": "val_accuracy", "min_delta": 9.0, "patience": 2}),
    "reducelronplateau": ("ReduceLROnPlateau", {"min_delta": 9.0, "patience": 1, "factor": 0.5, "cooldown": 1}),
    "terminateonnan": ("TerminateOnNaN", {}),
}
METRICS = ("accuracy", "precision", "recall", "f1", "auc", "mae", "mse", "rmse", "top_5_accuracy")
CONFIG = TrainConfig(batch_size=16, epochs=2)
ROUNDS = 2
EXAMPLES = 48
SEED = 7


def tiny(keras, activation="softmax", units=3):
    module = import_keras(keras).module
    module.utils.set_random_seed(3)
    layers = module.layers
    return module.Sequential(
        [layers.Input((8,)), layers.Dense(6, activation="tanh"), layers.Dense(units, activation=activation)]
    )


def saved(keras, folder, **fields):
    model = tiny(keras, **fields)
    path = folder / f"{keras}.keras"
    if keras == "keras":
        model.save(path)
    else:
        write_saved_model(model, import_keras(keras), path)
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {keras: saved(keras, folder) for keras in KERASES}


def by_hand(keras, model, train, test, *, optimizer, callback, rounds=ROUNDS):
    """Train all rounds as one fit; return the weights and how many epochs it took."""
    module = import_keras(keras).module
    name, fields = optimizer
    # traced, tf_keras' Nadam depends on how often it was traced; the session's does not
    eagerly = (keras, name) == ("tf_keras", "Nadam")
    own = getattr(module.optimizers, name)(**fields)
    model.compile(own, loss="sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=eagerly)
    epochs = ROUNDS * CONFIG.epochs
    config = CONFIG.model_copy(update={"epochs": epochs // rounds})
    plans = (BatchPlan(len(train), config, seed=SEED, server_round=number + 1) for number in range(rounds))
    order = np.concatenate([index for plan in plans for epoch in range(config.epochs) for index in plan.epoch(epoch)])
    batches = import_tensorflow().data.Dataset.from_tensor_slices((train.x[order], train.y[order])).batch(16)
    name, fields = callback
    history = model.fit(
        batches,
        steps_per_epoch=EXAMPLES // 16,
        epochs=epochs,
        validation_data=(test.x, test.y),
        callbacks=[getattr(module.callbacks, name)(**fields)],
        shuffle=False,
        verbose=0,
    )
    return model.get_weights(), len(history.epoch)


def trained(make_session, folder, *, restart):
    """Train round by round; with ``restart``, in a new session for each that takes up the saved state."""
    session = make_session()
    for number in range(ROUNDS):
        session.fit(CONFIG, server_round=number + 1)
        if restart and number + 1 < ROUNDS:
            session.save_state(folder)
            weights, session = session.get_parameters(), make_session()
            session.set_parameters(weights)
            session.load_state(folder)
    return session


def check(keras, path, make_session, kit, folder, *, optimizer, callback, restart):
    train, test = kit.blobs(examples=EXAMPLES), kit.blobs(examples=30, seed=5)

    def new():
        fields = {"optimizer": kit.optimizer(optimizer, **OPTIMIZERS[optimizer][1])}
        fields["scheduler"] = kit.scheduler(callback, **CALLBACKS[callback][1])
        return make_session(path, train=train, test=test, seed=SEED, **fields)

    session = trained(new, folder, restart=restart)
    before = tiny(keras)
    initial = before.get_weights()
    weights, epochs = by_hand(keras, before, train, test, optimizer=OPTIMIZERS[optimizer], callback=CALLBACKS[callback])
    parameters = list(session.get_parameters().values())
    assert not any(np.allclose(one, first, atol=1e-4) for one, first in zip(weights, initial, strict=True))
    for one, other in zip(parameters, weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert epochs == (3 if callback == "earlystopping" else 4)


CASES = list(itertools.product(OPTIMIZERS, CALLBACKS, KERASES))
QUICK = [(name, list(CALLBACKS)[number % 3], KERASES[number % 2]) for number, name in enumerate(OPTIMIZERS)]


@pytest.mark.parametrize(("optimizer", "callback", "keras"), QUICK)
def test_an_optimizer_with_a_callback(optimizer, callback, keras, paths, make_session, kit, tmp_path):
    check(keras, paths[keras], make_session, kit, tmp_path, optimizer=optimizer, callback=callback, restart=False)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "callback", "keras"), CASES)
def test_every_optimizer_with_every_callback(optimizer, callback, keras, paths, make_session, kit, tmp_path):
    check(keras, paths[keras], make_session, kit, tmp_path, optimizer=optimizer, callback=callback, restart=True)


@pytest.mark.parametrize("keras", KERASES)
def test_metrics_and_loss_are_those_of_evaluate_by_hand(keras, paths, make_session, kit):
    session = make_session(paths[keras], metrics=METRICS)
    test = kit.blobs(examples=40, seed=5)
    model, metrics = tiny(keras), import_keras(keras).module.metrics
    own = [
        metrics.CategoricalAccuracy(name="accuracy"),
        metrics.F1Score(average="macro", name="f1"),
        metrics.AUC(multi_label=True, num_labels=3, name="auc"),
        metrics.MeanAbsoluteError(name="mae"),
        metrics.MeanSquaredError(name="mse"),
        metrics.RootMeanSquaredError(name="rmse"),
        metrics.TopKCategoricalAccuracy(5, name="top_5_accuracy"),
    ]
    model.compile(loss="categorical_crossentropy", metrics=own)
    expected = model.evaluate(test.x, np.eye(3)[test.y], batch_size=16, verbose=0, return_dict=True)
    told = session.evaluate(CONFIG)
    assert told.loss == pytest.approx(expected.pop("loss"), rel=1e-5)
    assert {name: told.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("keras", KERASES)
def test_a_moving_average_ends_in_the_model(keras, paths, make_session, kit):
    train, test = kit.blobs(examples=EXAMPLES), kit.blobs(examples=30, seed=5)
    fields = {"learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.5}
    session = make_session(paths[keras], train=train, test=test, seed=SEED, optimizer=kit.optimizer("sgd", **fields))
    session.fit(TrainConfig(batch_size=16, epochs=ROUNDS * CONFIG.epochs), server_round=1)
    weights, _ = by_hand(
        keras, tiny(keras), train, test, optimizer=("SGD", fields), callback=("TerminateOnNaN", {}), rounds=1
    )
    for one, other in zip(session.get_parameters().values(), weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
