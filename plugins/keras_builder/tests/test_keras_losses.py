from __future__ import annotations

import typing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from locex.errors import FormatMismatch, InvalidConfiguration
from locex_keras_builder import targets
from locex_keras_builder.kerases import import_keras
from locex_keras_builder.losses import loss_named
from locex_keras_builder.names import LossName
from locex_keras_builder.outputs import activation_of

KERASES = ["keras", "tf_keras"]
both = pytest.mark.parametrize("keras", KERASES)
INDEX = np.array([2, 0, 1, 1, 2])
ROWS = np.eye(3)[INDEX]
BITS = np.array([1, 0, 0, 1, 1])
CROSS_ENTROPY = ["categorical_crossentropy", "sparse_categorical_crossentropy", "cross_entropy", "crossentropy", "nll"]
ELEMENTWISE = {
    "mean_squared_error": "mean_squared_error",
    "mse": "mean_squared_error",
    "mean_absolute_error": "mean_absolute_error",
    "mae": "mean_absolute_error",
    "l1": "mean_absolute_error",
    "mean_absolute_percentage_error": "mean_absolute_percentage_error",
    "mape": "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error": "mean_squared_logarithmic_error",
    "msle": "mean_squared_logarithmic_error",
    "huber": "huber",
    "smooth_l1": "huber",
    "logcosh": "log_cosh",
    "log_cosh": "log_cosh",
    "cosine_similarity": "cosine_similarity",
    "poisson": "poisson",
}


def model(keras, units=3, activation=None):
    layers = import_keras(keras).module.layers
    return import_keras(keras).module.Sequential([layers.Input((4,)), layers.Dense(units, activation=activation)])


def outputs_of(made, examples=5):
    x = np.random.default_rng(1).normal(size=(examples, 4)).astype(np.float32)
    return np.asarray(made(x))


def named(name, keras, made, y):
    return loss_named(name, import_keras(keras), made, outputs_of(made), y)


def value(loss, made, y):
    return float(loss.function(loss.targets(y), outputs_of(made)))


def softmax(logits):
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


@both
@pytest.mark.parametrize("activation", ["softmax", None])
@pytest.mark.parametrize("name", CROSS_ENTROPY)
def test_cross_entropy_of_indices_and_rows_from_probabilities_and_logits(name, activation, keras):
    made = model(keras, activation=activation)
    given_ = outputs_of(made)
    probabilities = given_ if activation else softmax(given_)
    expected = -np.log(probabilities[np.arange(5), INDEX]).mean()
    for y in (INDEX, INDEX[:, None].astype(np.float64), ROWS):
        loss = named(name, keras, made, y)
        assert value(loss, made, y) == pytest.approx(expected, rel=1e-4)
        assert (loss.task, loss.scores) == ("multiclass", activation is None)


@both
@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_focal_losses_are_keras_own(activation, keras):
    losses = import_keras(keras).module.losses
    made, logits = model(keras, activation=activation), activation is None
    own = losses.CategoricalFocalCrossentropy(from_logits=logits)(ROWS.astype(np.float32), outputs_of(made))
    for y in (INDEX, ROWS):
        loss = named("categorical_focal_crossentropy", keras, made, y)
        assert value(loss, made, y) == pytest.approx(float(own), rel=1e-5)
    made = model(keras, 1, activation)
    own = losses.BinaryFocalCrossentropy(from_logits=logits)(BITS[:, None].astype(np.float32), outputs_of(made))
    assert value(named("binary_focal_crossentropy", keras, made, BITS), made, BITS) == pytest.approx(
        float(own), rel=1e-5
    )


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("CategoricalCrossentropy", "categorical_crossentropy"),
        ("BCEWithLogitsLoss", "bce_with_logits"),
        ("MSELoss", "mse"),
        ("KLDivLoss", "kl_div"),
        ("SmoothL1Loss", "smooth_l1"),
        (" MeanSquaredError", "mean_squared_error"),
    ],
)
def test_names_of_classes_are_understood(written, name):
    assert TypeAdapter(LossName).validate_python(written) == name


@pytest.mark.parametrize("name", ["ctc", "Dice", "triplet", "CosineEmbeddingLoss"])
def test_a_loss_without_a_meaning_is_refused_with_the_list(name, mlp, make_session):
    with pytest.raises(InvalidConfiguration, match="'categorical_crossentropy', 'sparse_categorical_cross") as caught:
        make_session(mlp, loss=name)
    assert caught.value.errors[0]["path"] == "/eval_func"


@pytest.mark.parametrize("name", ["poisson_nll", "PoissonNLLLoss"])
def test_pytorch_s_poisson_loss_is_refused_with_the_equal_one(name, mlp, make_session):
    with pytest.raises(InvalidConfiguration, match="activation exponential, and choose 'poisson'") as caught:
        make_session(mlp, loss=name)
    assert caught.value.errors[0]["path"] == "/eval_func"
    made = model("keras", 1, "exponential")
    rates, y = outputs_of(made), np.array([[0.0], [2.0], [3.0], [1.0], [5.0]])
    expected = (rates - y * np.log(rates)).mean()  # torch.nn.PoissonNLLLoss of the logarithm
    assert value(named("poisson", "keras", made, y), made, y) == pytest.approx(expected, rel=1e-5)


@both
def test_class_probabilities_are_targets_too(keras):
    made = model(keras, activation="softmax")
    soft = 0.7 * ROWS + 0.1
    expected = -(soft * np.log(outputs_of(made))).sum(1).mean()
    assert value(named("categorical_crossentropy", keras, made, soft), made, soft) == pytest.approx(expected, rel=1e-4)


@both
def test_test_targets_take_the_form_of_training_targets(keras):
    made = model(keras, activation="softmax")
    by_index, by_row = (named("crossentropy", keras, made, y) for y in (INDEX, ROWS))
    assert np.array_equal(by_index.targets(ROWS), INDEX)
    assert np.array_equal(by_row.targets(INDEX), ROWS)
    with pytest.raises(FormatMismatch, match="these are probabilities"):
        by_index.targets(0.7 * ROWS + 0.1)


@both
@pytest.mark.parametrize("activation", ["sigmoid", None])
@pytest.mark.parametrize("name", ["binary_crossentropy", "binary_cross_entropy", "bce", "bce_with_logits"])
def test_two_classes_share_a_unit(name, activation, keras):
    made = model(keras, 1, activation)
    given_ = outputs_of(made)[:, 0]
    probabilities = given_ if activation else 1 / (1 + np.exp(-given_))
    expected = -np.log(np.where(BITS, probabilities, 1 - probabilities)).mean()
    for y in (BITS, BITS[:, None], np.eye(2)[BITS], BITS.astype(bool)):
        loss = named(name, keras, made, y)
        assert loss.task == "binary"
        assert value(loss, made, y) == pytest.approx(expected, rel=1e-4)


@both
def test_several_labels_have_a_unit_each(keras):
    made = model(keras, activation="sigmoid")
    y = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
    given_ = outputs_of(made)
    expected = -np.log(np.where(y, given_, 1 - given_)).mean()
    assert value(named("bce", keras, made, y), made, y) == pytest.approx(expected, rel=1e-4)


@both
@pytest.mark.parametrize(("name", "own"), ELEMENTWISE.items())
def test_losses_of_numbers_are_keras_own(name, own, keras):
    made = model(keras, 1, "softplus")
    y = np.array([0.5, 2.0, 3.0, 1.0, 0.1])
    module = import_keras(keras).module
    expected = np.mean(getattr(module.losses, own)(y[:, None].astype(np.float32), outputs_of(made)))
    for shaped in (y, y[:, None]):
        loss = named(name, keras, made, shaped)
        assert loss.task == "regression"
        assert value(loss, made, shaped) == pytest.approx(float(expected), rel=1e-5)


@both
@pytest.mark.parametrize(("name", "power"), [("hinge", 1), ("squared_hinge", 2)])
def test_hinge_losses_read_signs_and_bits(name, power, keras):
    made = model(keras, 1)
    signs = 2 * BITS - 1
    expected = (np.maximum(1 - signs * outputs_of(made)[:, 0], 0) ** power).mean()
    for y in (signs, BITS, signs[:, None], np.eye(2)[BITS]):
        loss = named(name, keras, made, y)
        assert (loss.task, loss.scores) == ("binary", True)
        assert value(loss, made, y) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(FormatMismatch, match="-1 and 1, or 0 and 1"):
        loss.targets(np.array([0.5, 1.0]))
    with pytest.raises(FormatMismatch, match="-1 and 1, or 0 and 1"):
        loss.targets(np.array([-1.0, 0.0]))


@both
@pytest.mark.parametrize("name", ["categorical_hinge", "kl_divergence", "kl_div", "kldiv", "kld"])
def test_losses_of_distributions_read_indices_too(name, keras):
    made = model(keras, activation="softmax")
    given_ = outputs_of(made)
    hinge = np.maximum((given_ - ROWS - 9 * ROWS).max(1) - (given_ * ROWS).sum(1) + 1, 0).mean()
    expected = hinge if name == "categorical_hinge" else -np.log((given_ * ROWS).sum(1)).mean()
    for y in (INDEX, ROWS):
        assert value(named(name, keras, made, y), made, y) == pytest.approx(expected, rel=1e-4)


@both
@pytest.mark.parametrize("name", ["mse", "bce", "hinge"])
def test_classes_may_be_trained_by_other_losses(name, keras):
    made = model(keras, activation="softmax")
    by_index, by_row = (named(name, keras, made, y) for y in (INDEX, ROWS))
    assert by_index.task == "multiclass"
    assert value(by_index, made, INDEX) == value(by_row, made, ROWS)


def test_every_name_is_a_loss():
    for name in typing.get_args(typing.get_args(LossName)[0]):
        softplus = name in ELEMENTWISE
        y = BITS if softplus else INDEX
        made = model("keras", 1 if softplus else 3, "softplus" if softplus else "softmax")
        assert np.isfinite(value(named(name, "keras", made, y), made, y))


@both
@pytest.mark.parametrize("name", [*CROSS_ENTROPY, "categorical_hinge", "kldiv"])
def test_one_unit_does_not_tell_classes_apart(name, keras):
    with pytest.raises(InvalidConfiguration, match="needs an output unit for each class") as caught:
        named(name, keras, model(keras, 1, "sigmoid"), BITS)
    assert caught.value.errors[0]["path"] == "/eval_func"
    assert "binary_crossentropy" in caught.value.remedy


def test_a_divergence_needs_probabilities():
    with pytest.raises(InvalidConfiguration, match="needs probabilities, the model gives logits"):
        named("kl_divergence", "keras", model("keras"), INDEX)


@pytest.mark.parametrize(
    ("name", "units", "activation", "y", "message"),
    [
        ("cross_entropy", 3, "softmax", INDEX + 1, "class indices from 0 to 2"),
        ("cross_entropy", 3, "softmax", INDEX - 1, "class indices from 0 to 2"),
        ("cross_entropy", 3, "softmax", INDEX + 0.5, "class indices from 0 to 2"),
        ("cross_entropy", 3, "softmax", np.eye(4)[INDEX], r"size \[4\] do not fit the model's output of size \[3\]"),
        ("bce", 1, "sigmoid", INDEX, "targets from 0 to 1"),
        ("bce", 2, "sigmoid", BITS, r"size \[\] do not fit"),
        ("mse", 2, None, ROWS, r"size \[3\] do not fit"),
        ("mse", 3, "softmax", INDEX + 1, "class indices"),
    ],
)
def test_targets_that_do_not_fit_are_refused(name, units, activation, y, message):
    with pytest.raises(FormatMismatch, match=message) as caught:
        named(name, "keras", model("keras", units, activation), y).targets(y)
    assert caught.value.remedy


@both
def test_the_last_activation_is_found_behind_other_layers(keras):
    module = import_keras(keras).module
    layers = module.layers
    wanted = {
        "softmax": [layers.Dense(3), layers.Activation("softmax")],
        "linear": [layers.Dense(3), layers.Reshape((3, 1)), layers.Dropout(0.1), layers.Flatten()],
        "sigmoid": [layers.Dense(3, activation="sigmoid"), layers.Activation("linear", dtype="float32")],
        None: [layers.Dense(3), layers.BatchNormalization()],
    }
    for name, stack in wanted.items():
        sequential = module.Sequential([layers.Input((4,)), *stack])
        assert activation_of(sequential) == name
        inputs = layers.Input((4,))
        assert activation_of(module.Model(inputs, sequential(inputs))) == name
    assert activation_of(module.Sequential([layers.Input((4,)), layers.Dense(3), layers.Softmax()])) == "softmax"


@both
def test_where_the_model_does_not_tell_its_outputs_do(keras):
    layers = import_keras(keras).module.layers
    made = import_keras(keras).module.Sequential([layers.Input((4,)), layers.Dense(3), layers.BatchNormalization()])
    for logits in (outputs_of(made), np.zeros((5, 3), np.float32)):
        assert loss_named("crossentropy", import_keras(keras), made, logits, INDEX).scores
    assert not loss_named("crossentropy", import_keras(keras), made, softmax(outputs_of(made)), INDEX).scores


@both
def test_pixels_have_classes_each(keras):
    layers = import_keras(keras).module.layers
    made = import_keras(keras).module.Sequential([layers.Input((2, 2, 1)), layers.Conv2D(3, 1, activation="softmax")])
    outputs = np.asarray(made(np.random.default_rng(0).normal(size=(5, 2, 2, 1)).astype(np.float32)))
    index = np.random.default_rng(1).integers(0, 3, (5, 2, 2))
    expected = -np.log(np.take_along_axis(outputs, index[..., None], -1)).mean()
    for y in (index, index[..., None], np.eye(3)[index]):
        loss = loss_named("crossentropy", import_keras(keras), made, outputs, y)
        assert float(loss.function(loss.targets(y), outputs)) == pytest.approx(expected, rel=1e-4)


@settings(deadline=None)
@given(index=st.lists(st.integers(0, 4), max_size=8), column=st.booleans(), dtype=st.sampled_from("ilfd?"))
def test_indices_and_rows_are_one_another(index, column, dtype):
    index = np.array(index, np.int64).astype(dtype)
    classes = index.astype(np.int32)
    y = index[:, None] if column else index
    assert np.array_equal(targets.class_indices(y, (5,)), classes)
    rows = targets.class_rows(y, (5,))
    assert rows.dtype == np.float32
    assert np.array_equal(targets.class_indices(rows, (5,)), classes)
    assert np.array_equal(targets.class_rows(rows, (5,)), rows)
