from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from locex.api import Dataset
from locex.errors import FormatMismatch, InvalidConfiguration
from locex.schemas.job import TrainConfig
from locex_torch_builder.artefact import write_architecture
from locex_torch_builder.losses import LOSSES
from locex_torch_builder.names import LossName

CONFIG = TrainConfig(batch_size=16, epochs=2)
RANDOM = np.random.default_rng(0)
OUTPUTS = RANDOM.normal(size=(20, 4)).astype(np.float32)
INDEX = RANDOM.integers(0, 4, 20)
ROWS = np.eye(4)[INDEX]
SHARES = RANDOM.dirichlet(np.ones(4), 20)
BITS = RANDOM.integers(0, 2, (20, 4))
VALUES = RANDOM.normal(size=(20, 4))
LOGARITHMS = torch.from_numpy(OUTPUTS).log_softmax(1).numpy()


def same(left, right):
    assert list(left) == list(right)
    return all(np.array_equal(left[name], right[name]) for name in left)


def write(path, architecture="mlp", **config):
    write_architecture(path, architecture=architecture, config={"input_size": [8]} | config)
    return path


def encoded(data, classes):
    return Dataset(data.x, np.eye(classes)[data.y])


@pytest.fixture
def told(bare, make_session, kit):
    """The loss of given outputs and targets."""

    def evaluate(name, outputs, targets):
        data = Dataset(outputs, targets)
        fields = {"train": data, "test": data, "architecture": kit.passing(outputs.shape[1])}
        return make_session(bare, loss=name, metrics=(), **fields).evaluate(TrainConfig(batch_size=8)).loss

    return evaluate


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("names", "criterion", "outputs", "targets"),
    [
        (["cross_entropy", "CrossEntropyLoss"], nn.CrossEntropyLoss(), OUTPUTS, INDEX),
        (["categorical_crossentropy", "CategoricalCrossentropy"], nn.CrossEntropyLoss(), OUTPUTS, SHARES),
        (["sparse_categorical_crossentropy", "crossentropy"], nn.CrossEntropyLoss(), OUTPUTS, INDEX),
        (["nll", "NLLLoss", "nll_loss"], nn.NLLLoss(), LOGARITHMS, INDEX),
        (["kl_div", "KLDivLoss", "kldiv", "kld"], nn.KLDivLoss(reduction="batchmean"), LOGARITHMS, SHARES),
        (["bce", "binary_crossentropy", "BCEWithLogitsLoss"], nn.BCEWithLogitsLoss(), OUTPUTS, BITS),
        (["mse", "MSE", "mean_squared_error", "MSELoss"], nn.MSELoss(), OUTPUTS, VALUES),
        (["mae", "l1", "L1Loss", "MeanAbsoluteError"], nn.L1Loss(), OUTPUTS, VALUES),
        (["huber", "Huber", "HuberLoss", "huber_loss"], nn.HuberLoss(), OUTPUTS, VALUES),
        (["smooth_l1", "SmoothL1Loss"], nn.SmoothL1Loss(), OUTPUTS, VALUES),
        (["poisson_nll", "PoissonNLLLoss"], nn.PoissonNLLLoss(), OUTPUTS, BITS),
    ],
)
def test_a_loss_is_pytorchs(names, criterion, outputs, targets, told):
    exact = torch.from_numpy(targets) if targets.ndim == 1 else torch.from_numpy(targets).float()
    expected = float(criterion(torch.from_numpy(outputs), exact))
    assert [told(name, outputs, targets) for name in names] == pytest.approx([expected] * len(names), rel=1e-5)


def others(logits, index):
    right = logits[np.arange(len(index)), index]
    rest = np.where(np.eye(logits.shape[1])[index] == 1, 0, logits).max(1)
    return np.maximum(rest - right + 1, 0).mean()


@pytest.mark.parametrize(
    ("names", "formula", "outputs", "targets"),
    [
        (["kl_divergence"], lambda o, t: (t * np.log(t / softmax(o))).sum(1).mean(), OUTPUTS, SHARES),
        (["categorical_hinge"], others, OUTPUTS, INDEX),
        (
            ["categorical_focal_crossentropy"],
            lambda o, t: -(0.25 * (1 - softmax(o)) ** 2 * np.eye(4)[t] * np.log(softmax(o))).sum(1).mean(),
            OUTPUTS,
            INDEX,
        ),
        (
            ["binary_focal_crossentropy"],
            lambda o, t: (
                -np.where(
                    t == 1, (1 - sigmoid(o)) ** 2 * np.log(sigmoid(o)), sigmoid(o) ** 2 * np.log(1 - sigmoid(o))
                ).mean()
            ),
            OUTPUTS,
            BITS,
        ),
        (["hinge"], lambda o, t: np.maximum(1 - (2 * t - 1) * o, 0).mean(), OUTPUTS, BITS),
        (["squared_hinge"], lambda o, t: (np.maximum(1 - (2 * t - 1) * o, 0) ** 2).mean(), OUTPUTS, BITS),
        (
            ["mape", "mean_absolute_percentage_error"],
            lambda o, t: 100 * np.abs((t - o) / t).mean(),
            OUTPUTS,
            VALUES,
        ),
        (
            ["msle", "mean_squared_logarithmic_error"],
            lambda o, t: ((np.log1p(np.maximum(o, 0)) - np.log1p(np.maximum(t, 0))) ** 2).mean(),
            OUTPUTS,
            VALUES,
        ),
        (["logcosh", "log_cosh", "LogCosh"], lambda o, t: np.log(np.cosh(o - t)).mean(), OUTPUTS, VALUES),
        (
            ["cosine_similarity"],
            lambda o, t: -((o * t).sum(1) / np.linalg.norm(o, axis=1) / np.linalg.norm(t, axis=1)).mean(),
            OUTPUTS,
            VALUES,
        ),
        (["poisson", "Poisson"], lambda o, t: (o - t * np.log(o)).mean(), np.abs(OUTPUTS) + 0.1, BITS),
    ],
)
def test_a_loss_is_keras(names, formula, outputs, targets, told):
    expected = float(formula(outputs.astype(np.float64), targets))
    assert [told(name, outputs, targets) for name in names] == pytest.approx([expected] * len(names), rel=1e-4)


@pytest.mark.parametrize("name", ["nll", "kl_divergence", "categorical_hinge", "categorical_focal_crossentropy"])
def test_indices_and_rows_are_the_same_classes(name, told):
    assert told(name, OUTPUTS, INDEX) == pytest.approx(told(name, OUTPUTS, ROWS), rel=1e-6)


def test_likelihood_of_probabilities(told):
    expected = -(SHARES * LOGARITHMS).sum(1).mean()
    assert told("nll", LOGARITHMS, SHARES) == pytest.approx(expected, rel=1e-5)


def test_margins_take_both_spellings_of_two_classes(told):
    assert told("hinge", OUTPUTS, BITS) == told("hinge", OUTPUTS, 2 * BITS - 1)


def test_every_loss_trains(bare, make_session, kit):
    targets = {"multiclass": ROWS, "binary": BITS, "regression": np.abs(VALUES) + 1}
    names = get_args(get_args(LossName)[0])
    assert len(names) == len(set(names)) > 30
    for name in names:
        data = Dataset(np.abs(OUTPUTS), targets[LOSSES[name].reading.kind])
        fields = {"train": data, "test": data, "architecture": kit.passing(4), "optimizer": kit.optimizer(lr=0.001)}
        session = make_session(bare, loss=name, metrics=(), **fields)
        before = session.evaluate(CONFIG).loss
        session.fit(CONFIG, server_round=1)
        assert session.evaluate(CONFIG).loss < before, name


@pytest.mark.parametrize(
    "loss",
    [None, "categorical_crossentropy", "sparse_categorical_crossentropy", "cross_entropy", "crossentropy"],
)
def test_an_index_and_a_one_hot_row_train_alike(loss, mlp, make_session, kit):
    index, rows = kit.blobs(), encoded(kit.blobs(), 3)
    column = Dataset(index.x, index.y[:, None].astype(np.float64))
    results = []
    for train in (index, rows, column):
        session = make_session(mlp, loss=loss, train=train)
        session.fit(CONFIG, server_round=1)
        results.append(session.get_parameters())
    assert same(results[0], results[1])
    assert same(results[0], results[2])


def test_class_probabilities_are_targets_too(mlp, make_session, kit):
    rows = encoded(kit.blobs(), 3)
    session = make_session(mlp, train=Dataset(rows.x, 0.7 * rows.y + 0.1))
    assert session.fit(CONFIG, server_round=1).metrics["accuracy"] > 0.5


@pytest.mark.parametrize("loss", ["binary_crossentropy", "bce", "hinge"])
def test_two_classes_train_one_unit(loss, tmp_path, make_session, kit):
    path = write(tmp_path / "m.zip", num_classes=2, outputs=1)
    index = kit.blobs(classes=2)
    targets = (index.y, index.y[:, None], np.eye(2)[index.y])
    results = []
    for y in targets:
        session = make_session(path, loss=loss, train=Dataset(index.x, y), test=Dataset(index.x, y))
        session.fit(TrainConfig(batch_size=16, epochs=4), server_round=1)
        results.append(session.get_parameters())
        assert session.evaluate(CONFIG).metrics["accuracy"] > 0.95
    assert same(results[0], results[1])
    assert same(results[0], results[2])


@pytest.mark.parametrize("loss", ["mse", "mean_squared_error"])
def test_regression(loss, tmp_path, make_session, kit):
    path = write(tmp_path / "m.zip", outputs=1)
    x = kit.blobs().x
    train = Dataset(x, x.sum(1).astype(np.float64))
    session = make_session(
        path, loss=loss, metrics=("loss",), train=train, test=train, optimizer=kit.optimizer(lr=0.01)
    )
    before = session.evaluate(CONFIG).loss
    assert set(session.fit(CONFIG, server_round=1).metrics) == {"loss"}
    assert session.evaluate(CONFIG).loss < before / 2


@pytest.mark.parametrize("name", ["ctc", "Dice", "triplet", "CosineEmbeddingLoss"])
def test_a_loss_without_a_meaning_is_refused_with_the_list(name, mlp, make_session):
    with pytest.raises(InvalidConfiguration, match="'categorical_crossentropy', 'sparse_categorical_cross") as caught:
        make_session(mlp, loss=name)
    assert caught.value.errors[0]["path"] == "/eval_func"
    assert "'poisson_nll'" in str(caught.value)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "nll", "kl_divergence", "categorical_hinge"])
def test_classes_need_a_unit_each(loss, tmp_path, make_session):
    with pytest.raises(InvalidConfiguration, match="unit for each class") as caught:
        make_session(write(tmp_path / "m.zip", outputs=1), loss=loss)
    assert caught.value.errors[0]["path"] == "/eval_func"


@pytest.mark.parametrize(
    ("x", "y", "fields"),
    [
        ((9,), np.zeros(6, int), {}),
        ((8,), np.full(6, 3), {}),
        ((8,), np.full(6, 0.5), {}),
        ((8,), np.zeros((6, 4)), {}),
        ((8,), np.zeros(5, int), {}),
        ((8,), np.zeros(6), {"loss": "mse", "metrics": ()}),
        ((8,), np.full((6, 3), 2.0), {"loss": "bce"}),
        ((8,), np.full((6, 3), 0.5), {"loss": "hinge"}),
        ((8,), np.zeros(6, int), {"loss": "hinge"}),
    ],
)
def test_data_that_does_not_fit_is_refused(x, y, fields, mlp, make_session):
    with pytest.raises(FormatMismatch) as caught:
        make_session(mlp, train=Dataset(np.zeros((6, *x)), y), **fields)
    assert caught.value.remedy


def test_images_are_classified_point_by_point(bare, make_session):
    random = np.random.default_rng(0)
    x = random.normal(size=(12, 3, 5, 5)).astype(np.float32)
    index = x.argmax(1)
    rows = np.moveaxis(np.eye(3)[index], -1, 1)

    def network(name, fields, seed):
        return torch.nn.Conv2d(3, 3, 1)

    results = []
    for y in (index, index[:, None], rows):
        torch.manual_seed(0)
        data = Dataset(x, y)
        metrics = ("accuracy", "f1", "auc", "top_5_accuracy")
        session = make_session(bare, architecture=network, train=data, test=data, metrics=metrics)
        session.fit(TrainConfig(batch_size=4, epochs=20), server_round=1)
        results.append(session.evaluate(CONFIG))
    assert results[0] == results[1] == results[2]
    assert results[0].metrics["accuracy"] > 0.9
    assert results[0].metrics["top_5_accuracy"] == 1.0
