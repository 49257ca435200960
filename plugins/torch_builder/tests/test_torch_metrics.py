from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics as truth

from locex.api import Dataset
from locex.errors import InvalidConfiguration
from locex.schemas.job import TrainConfig
from locex_torch_builder import metrics as module

RANDOM = np.random.default_rng(1)
LOGITS = RANDOM.normal(size=(500, 7)).astype(np.float32)
CLASSES = np.where(RANDOM.random(500) < 0.4, LOGITS.argmax(1), RANDOM.integers(0, 6, 500))  # never 6
SCORES = RANDOM.normal(size=(500, 1)).astype(np.float32)
YES = (SCORES[:, 0] + RANDOM.normal(size=500) > 0.3).astype(int)
LABELS = (LOGITS[:, :4] + RANDOM.normal(size=(500, 4)) > 0.5).astype(int)
VALUES = LOGITS + RANDOM.normal(scale=0.5, size=LOGITS.shape)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def told(bare, make_session, kit):
    """The metrics of given outputs and targets."""

    def evaluate(outputs, targets, loss, names, batch_size=64):
        data = Dataset(outputs, targets)
        fields = {"train": data, "test": data, "architecture": kit.passing(outputs.shape[1])}
        session = make_session(bare, loss=loss, metrics=names, **fields)
        return session.evaluate(TrainConfig(batch_size=batch_size)).metrics

    return evaluate


def test_metrics_of_classes_are_those_of_scikit_learn(told):
    predicted, shares, rows = LOGITS.argmax(1), softmax(LOGITS), np.eye(7)[CLASSES]
    macro = {"average": "macro", "zero_division": 0}
    expected = {
        "accuracy": truth.accuracy_score(CLASSES, predicted),
        "categorical_accuracy": truth.accuracy_score(CLASSES, predicted),
        "precision": truth.precision_score(CLASSES, predicted, **macro),
        "recall": truth.recall_score(CLASSES, predicted, **macro),
        "f1": truth.f1_score(CLASSES, predicted, **macro),
        "f1_score": truth.f1_score(CLASSES, predicted, **macro),
        "top_k_categorical_accuracy": truth.top_k_accuracy_score(CLASSES, LOGITS, k=5, labels=range(7)),
        "top_5_accuracy": truth.top_k_accuracy_score(CLASSES, LOGITS, k=5, labels=range(7)),
        "mae": truth.mean_absolute_error(rows, shares),
        "mse": truth.mean_squared_error(rows, shares),
        "rmse": truth.mean_squared_error(rows, shares) ** 0.5,
    }
    found = told(LOGITS, CLASSES, "categorical_crossentropy", list(expected))
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-5)
    assert told(LOGITS, rows, "categorical_crossentropy", list(expected)) == found


def test_the_area_under_the_curve_is_that_over_200_thresholds(told):
    several = LOGITS[:, :4]
    classes = np.where(np.arange(500) % 2, several.argmax(1), RANDOM.integers(0, 4, 500))
    expected = truth.roc_auc_score(classes, softmax(several), multi_class="ovr", average="macro")
    assert told(several, classes, "categorical_crossentropy", ["auc"])["auc"] == pytest.approx(expected, abs=0.005)
    expected = truth.roc_auc_score(YES, SCORES[:, 0])
    assert told(SCORES, YES, "bce", ["auc"])["auc"] == pytest.approx(expected, abs=0.005)
    expected = truth.roc_auc_score(LABELS, several, average="macro")
    assert told(several, LABELS, "bce", ["auroc"])["auroc"] == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("loss", ["binary_crossentropy", "hinge"])
def test_metrics_of_two_classes(loss, told):
    predicted = SCORES[:, 0] > 0
    expected = {
        "accuracy": truth.accuracy_score(YES, predicted),
        "binary_accuracy": truth.accuracy_score(YES, predicted),
        "precision": truth.precision_score(YES, predicted),
        "recall": truth.recall_score(YES, predicted),
        "f1": truth.f1_score(YES, predicted),
        "mae": truth.mean_absolute_error(YES, sigmoid(SCORES[:, 0])),
    }
    assert told(SCORES, YES, loss, list(expected)) == pytest.approx(expected, rel=1e-5)


def test_metrics_of_several_units_are_means_over_units(told):
    several = LOGITS[:, :4]
    predicted = several > 0
    expected = {
        "accuracy": (predicted == LABELS).mean(),
        "precision": truth.precision_score(LABELS, predicted, average="macro"),
        "recall": truth.recall_score(LABELS, predicted, average="macro"),
        "f1": truth.f1_score(LABELS, predicted, average="macro"),
    }
    assert told(several, LABELS, "bce", list(expected)) == pytest.approx(expected, rel=1e-5)


def test_metrics_of_values(told):
    expected = {
        "mae": truth.mean_absolute_error(VALUES, LOGITS),
        "mean_absolute_error": truth.mean_absolute_error(VALUES, LOGITS),
        "mse": truth.mean_squared_error(VALUES, LOGITS),
        "rmse": truth.mean_squared_error(VALUES, LOGITS) ** 0.5,
        "root_mean_squared_error": truth.mean_squared_error(VALUES, LOGITS) ** 0.5,
    }
    assert told(LOGITS, VALUES, "huber", list(expected)) == pytest.approx(expected, rel=1e-6)
    counts = RANDOM.poisson(2, LOGITS.shape)
    expected = truth.mean_absolute_error(counts, np.exp(LOGITS))
    assert told(LOGITS, counts, "poisson_nll", ["mae"])["mae"] == pytest.approx(expected, rel=1e-5)


def test_fewer_than_five_classes_have_a_top(told):
    assert told(LOGITS[:, :3], CLASSES % 3, "cross_entropy", ["top_5_accuracy"]) == {"top_5_accuracy": 1.0}


def test_class_names_are_known_too(told):
    names = ["Accuracy", "AUC", "F1Score", "TopKCategoricalAccuracy", "MeanSquaredError", "loss"]
    found = told(LOGITS, CLASSES, "CategoricalCrossentropy", names)
    assert list(found) == ["accuracy", "auc", "f1_score", "top_k_categorical_accuracy", "mean_squared_error"]


def test_batches_do_not_change_a_metric(told, monkeypatch):
    names = ["accuracy", "f1", "auc", "top_5_accuracy", "mse"]
    at_once = told(LOGITS, CLASSES, "cross_entropy", names, batch_size=500)
    monkeypatch.setattr(module, "BUFFERED", 100)  # several times in one evaluation
    assert told(LOGITS, CLASSES, "cross_entropy", names, batch_size=17) == pytest.approx(at_once, rel=1e-6)


def test_training_and_evaluation_count_apart(mlp, make_session):
    session = make_session(mlp, metrics=("accuracy", "recall"))
    config = TrainConfig(batch_size=16, epochs=3)
    first = session.evaluate(config)
    assert session.evaluate(config) == first
    assert set(session.fit(config, server_round=1).metrics) == {"loss", "accuracy", "recall"}
    for server_round in range(2, 5):
        told = session.fit(config, server_round=server_round)
    assert told.metrics["accuracy"] > 0.95
    assert session.evaluate(config).examples == 40


@pytest.mark.parametrize(
    ("loss", "metric"),
    [
        ("mse", "accuracy"),
        ("mae", "f1"),
        ("poisson", "auc"),
        ("bce", "top_5_accuracy"),
        ("bce", "categorical_accuracy"),
        ("cross_entropy", "binary_accuracy"),
    ],
)
def test_a_metric_without_a_meaning_is_refused(loss, metric, mlp, make_session):
    with pytest.raises(InvalidConfiguration, match=f"{metric} needs a") as caught:
        make_session(mlp, loss=loss, metrics=(metric,))
    assert caught.value.errors[0]["path"] == "/eval_metrics"


def test_an_unknown_metric_is_refused_with_the_list(mlp, make_session):
    with pytest.raises(InvalidConfiguration, match="'accuracy', 'loss'") as caught:
        make_session(mlp, metrics=("accuracy", "kappa"))
    assert caught.value.errors[0]["path"] == "/eval_metrics/1"


def test_many_examples_take_no_memory():
    program = """
import json, resource, torch
from locex_torch_builder.metrics import Tally, measures
from locex_torch_builder.targets import Classes
torch.set_num_threads(1)
names = ["accuracy", "f1", "mse"]
tally = Tally(measures(names, Classes(), (100,), torch.device("cpu")), torch.device("cpu"))
peaks = []
for step in range(250):
    tally.add(torch.zeros(()), torch.randn(1000, 100), torch.randint(0, 100, (1000,)))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(json.dumps([peaks[50], peaks[-1], tally.metrics()["accuracy"]]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    early, late, accuracy = json.loads(done.stdout)
    assert 0.005 < accuracy < 0.015
    assert late - early < 40_000  # KiB; the outputs of the 200 batches between are 76 MiB
