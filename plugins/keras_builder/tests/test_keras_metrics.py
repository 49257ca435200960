from __future__ import annotations

import typing

import numpy as np
import pytest
from sklearn import metrics as sk

from locex.errors import InvalidConfiguration
from locex.schemas.objectives import MetricName
from locex_keras_builder.kerases import import_keras
from locex_keras_builder.losses import loss_named
from locex_keras_builder.metrics import metrics_named
from locex_keras_builder.names import MEASURES

KERASES = ["keras", "tf_keras"]
both = pytest.mark.parametrize("keras", KERASES)
EVERY = [name for name in typing.get_args(typing.get_args(MetricName)[0]) if name not in {"loss", "binary_accuracy"}]
EXAMPLES = 400


def model(keras, units, activation):
    layers = import_keras(keras).module.layers
    return import_keras(keras).module.Sequential([layers.Input((4,)), layers.Dense(units, activation=activation)])


def measured(keras, loss, names, y, outputs, *, batches=3):
    """Return each metric after so many batches."""
    made = metrics_named(names, import_keras(keras), loss)
    y = loss.targets(y)
    for metric in made:
        for part, given in zip(np.array_split(y, batches), np.array_split(outputs, batches), strict=True):
            metric.update_state(part, given)
    return {metric.name: float(metric.result()) for metric in made}


def logits(units, *, like=None, seed=0):
    noise = np.random.default_rng(seed).normal(size=(EXAMPLES, units))
    return (noise if like is None else noise + 1.5 * like).astype(np.float32)


def softmax(values):
    exponents = np.exp(values - values.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def classes_as_sklearn(y, probabilities, names):
    told, rows = probabilities.argmax(1), np.eye(probabilities.shape[1])[y]
    measures = {
        "accuracy": lambda: sk.accuracy_score(y, told),
        "precision": lambda: sk.precision_score(y, told, average="macro", zero_division=0),
        "recall": lambda: sk.recall_score(y, told, average="macro", zero_division=0),
        "f1": lambda: sk.f1_score(y, told, average="macro", zero_division=0),
        "auc": lambda: sk.roc_auc_score(rows, probabilities, average="macro"),
        "mae": lambda: sk.mean_absolute_error(rows, probabilities),
        "mse": lambda: sk.mean_squared_error(rows, probabilities),
        "rmse": lambda: sk.mean_squared_error(rows, probabilities) ** 0.5,
        "top_k": lambda: sk.top_k_accuracy_score(y, probabilities, k=5),
    }
    return {name: measures[MEASURES[name]]() for name in names}


def equal(told, expected):
    assert set(told) == set(expected)
    for name, value in told.items():  # Keras counts 200 thresholds of the curve
        assert value == pytest.approx(expected[name], abs=0.02 if MEASURES[name] == "auc" else 1e-5), name


@both
@pytest.mark.parametrize("activation", ["softmax", None])
@pytest.mark.parametrize("form", ["index", "rows"])
def test_metrics_of_classes_agree_with_sklearn(form, activation, keras):
    y = np.random.default_rng(1).choice(6, EXAMPLES, p=[0.4, 0.2, 0.15, 0.1, 0.1, 0.05])
    scores = logits(6, like=np.eye(6)[y])
    probabilities = softmax(scores)
    outputs = probabilities if activation else scores
    targets = y if form == "index" else np.eye(6)[y]
    made = model(keras, 6, activation)
    loss = loss_named("categorical_crossentropy", import_keras(keras), made, outputs, targets)
    equal(measured(keras, loss, EVERY, targets, outputs), classes_as_sklearn(y, probabilities, EVERY))


@both
def test_classes_that_do_not_occur_do_not_count(keras):
    y = np.random.default_rng(1).integers(0, 3, EXAMPLES)
    probabilities = softmax(logits(3, like=np.eye(3)[y]))
    wide = np.hstack([probabilities, np.zeros((EXAMPLES, 3), np.float32)])
    names = ["accuracy", "precision", "recall", "f1"]
    loss = loss_named("crossentropy", import_keras(keras), model(keras, 6, "softmax"), wide, y)
    equal(measured(keras, loss, names, y, wide), classes_as_sklearn(y, probabilities, names))


BINARY = ["accuracy", "precision", "recall", "f1", "auc", "mae", "mse", "rmse"]


@both
@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_metrics_of_one_unit_agree_with_sklearn(activation, keras):
    y = (np.random.default_rng(1).random(EXAMPLES) < 0.3).astype(int)
    scores = logits(1, like=2 * y[:, None] - 1)
    probabilities = sigmoid(scores)
    outputs = probabilities if activation else scores
    told, chance = probabilities[:, 0] > 0.5, probabilities[:, 0]
    for targets in (y, y[:, None], np.eye(2)[y]):
        loss = loss_named("bce", import_keras(keras), model(keras, 1, activation), outputs, targets)
        expected = {
            "accuracy": sk.accuracy_score(y, told),
            "precision": sk.precision_score(y, told),
            "recall": sk.recall_score(y, told),
            "f1": sk.f1_score(y, told),
            "auc": sk.roc_auc_score(y, chance),
            "mae": sk.mean_absolute_error(y, chance),
            "mse": sk.mean_squared_error(y, chance),
            "rmse": sk.mean_squared_error(y, chance) ** 0.5,
        }
        equal(measured(keras, loss, BINARY, targets, outputs), expected)


@both
def test_several_labels_are_averaged(keras):
    y = (np.random.default_rng(1).random((EXAMPLES, 3)) < [0.2, 0.5, 0.7]).astype(int)
    probabilities = sigmoid(logits(3, like=2 * y - 1))
    told = probabilities > 0.5
    loss = loss_named("bce", import_keras(keras), model(keras, 3, "sigmoid"), probabilities, y)
    expected = {
        "accuracy": (told == y).mean(),
        "precision": sk.precision_score(y, told, average="macro"),
        "recall": sk.recall_score(y, told, average="macro"),
        "f1": sk.f1_score(y, told, average="macro"),
        "auc": sk.roc_auc_score(y, probabilities, average="macro"),
        "mae": sk.mean_absolute_error(y, probabilities),
        "mse": sk.mean_squared_error(y, probabilities),
        "rmse": sk.mean_squared_error(y, probabilities) ** 0.5,
    }
    equal(measured(keras, loss, BINARY, y, probabilities), expected)


@both
def test_margins_decide_at_zero(keras):
    y = (np.random.default_rng(1).random(EXAMPLES) < 0.4).astype(int)
    margins = logits(1, like=2 * y[:, None] - 1)
    loss = loss_named("hinge", import_keras(keras), model(keras, 1, None), margins, y)
    told = measured(keras, loss, ["accuracy", "f1"], 2 * y - 1, margins)
    equal(told, {"accuracy": sk.accuracy_score(y, margins > 0), "f1": sk.f1_score(y, margins > 0)})


@both
@pytest.mark.parametrize("units", [1, 2])
def test_metrics_of_numbers_agree_with_sklearn(units, keras):
    outputs, y = logits(units), logits(units, seed=1)
    loss = loss_named("mse", import_keras(keras), model(keras, units, None), outputs, y)
    expected = {
        "mae": sk.mean_absolute_error(y, outputs),
        "mse": sk.mean_squared_error(y, outputs),
        "rmse": sk.mean_squared_error(y, outputs) ** 0.5,
    }
    equal(measured(keras, loss, ["mae", "mse", "rmse"], y, outputs), expected)


@both
def test_pixels_are_examples(keras):
    layers = import_keras(keras).module.layers
    made = import_keras(keras).module.Sequential([layers.Input((2, 5, 1)), layers.Conv2D(3, 1, activation="softmax")])
    y = np.random.default_rng(1).integers(0, 3, EXAMPLES)
    flat = softmax(logits(3, like=np.eye(3)[y]))
    outputs, shaped = flat.reshape(40, 2, 5, 3), y.reshape(40, 2, 5)
    loss = loss_named("crossentropy", import_keras(keras), made, outputs, shaped)
    names = ["accuracy", "precision", "recall", "f1", "auc", "mse"]
    equal(measured(keras, loss, names, shaped, outputs), classes_as_sklearn(y, flat, names))


@both
def test_metrics_are_keras_own_and_start_anew(keras):
    module = import_keras(keras).module
    y, outputs = np.array([0, 1, 2]), np.eye(3, dtype=np.float32)
    loss = loss_named("crossentropy", import_keras(keras), model(keras, 3, "softmax"), outputs, y)
    made = metrics_named(["loss", *EVERY, "accuracy"], import_keras(keras), loss)
    assert [metric.name for metric in made] == EVERY
    for metric in made:
        assert isinstance(metric, module.metrics.Metric)
        metric.update_state(y, outputs)
        metric.reset_state()
        metric.update_state(y, outputs[::-1])
        measure = MEASURES[metric.name]
        assert float(metric.result()) != (0 if measure in {"mae", "mse", "rmse"} else 1) or measure == "top_k"


@both
def test_metrics_of_a_fit(keras):
    module = import_keras(keras).module
    made = model(keras, 3, "softmax")
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    y = np.random.default_rng(1).integers(0, 3, 60)
    loss = loss_named("crossentropy", import_keras(keras), made, np.asarray(made(x[:8])), y)
    names = ["accuracy", "precision", "recall", "f1", "mse"]
    made.compile(module.optimizers.SGD(0.1), loss.function, metrics=metrics_named(names, import_keras(keras), loss))
    history = made.fit(x, loss.targets(y), validation_data=(x, loss.targets(y)), batch_size=16, verbose=0).history
    equal({name: history[f"val_{name}"][0] for name in names}, classes_as_sklearn(y, np.asarray(made(x)), names))


@both
@pytest.mark.parametrize(
    ("loss", "units", "activation", "metric"),
    [
        ("mse", 1, None, "accuracy"),
        ("mse", 1, None, "f1"),
        ("huber", 1, None, "auc"),
        ("bce", 1, "sigmoid", "top_5_accuracy"),
        ("bce", 1, "sigmoid", "categorical_accuracy"),
        ("crossentropy", 3, "softmax", "binary_accuracy"),
    ],
)
def test_metrics_that_the_loss_does_not_allow_are_refused(loss, units, activation, metric, keras):
    outputs, y = np.full((2, units), 0.5, np.float32), np.zeros(2)
    chosen = loss_named(loss, import_keras(keras), model(keras, units, activation), outputs, y)
    with pytest.raises(InvalidConfiguration, match=f"{metric} does not go with") as caught:
        metrics_named(["mae", metric], import_keras(keras), chosen)
    assert caught.value.errors[0]["path"] == "/eval_metrics"


def test_a_metric_of_another_name_is_refused_with_the_list(mlp, make_session):
    with pytest.raises(InvalidConfiguration, match="'accuracy', 'loss', 'acc'") as caught:
        make_session(mlp, metrics=["specificity"])
    assert caught.value.errors[0]["path"] == "/eval_metrics/0"
