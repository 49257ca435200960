"""Metrics by name: those of the session's own Keras, made to read every form of targets and outputs.

Precision, recall and F1 of several classes are macro averages over the classes that occur, scikit-learn's
``average="macro"``: micro averages would all be the accuracy. Of one unit they are the class 1's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from locex.errors import InvalidConfiguration
from locex.schemas.objectives import MetricName
from locex_keras_builder.kerases import Keras
from locex_keras_builder.losses import Loss
from locex_keras_builder.names import MEASURES

TOP_K = 5
_ERRORS = {"mae": "MeanAbsoluteError", "mse": "MeanSquaredError", "rmse": "RootMeanSquaredError"}
_SCORES = {"precision": (1.0, 0.0), "recall": (0.0, 1.0), "f1": (0.5, 0.5)}
"""What false positives and false negatives count beside the true positives in the denominator."""

if TYPE_CHECKING:
    Reading = Callable[[Any, Any], tuple[Any, Any]]

    class _Metric:
        """What the mixins use of Keras' metrics."""

        true_positives: Any
        false_positives: Any
        false_negatives: Any

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any: ...

else:
    _Metric = object


def metrics_named(names: Sequence[MetricName], keras: Keras, loss: Loss) -> list[Any]:
    """Return new ``keras.metrics`` objects for ``compile()``, each with the name that the user wrote.

    ``loss`` among the names is left out: it is always told. Raise `InvalidConfiguration` for a metric that the loss
    does not allow. Some are of classes made here: do not save them with a model.
    """
    return [_metric(name, keras.module.metrics, loss) for name in dict.fromkeys(names) if name != "loss"]


def _metric(name: MetricName, metrics: Any, loss: Loss) -> Any:
    measure = MEASURES[name]
    if measure in _ERRORS:
        error = getattr(metrics, _ERRORS[measure])
        regression = loss.task == "regression"
        return (error if regression else _made(error, _Reading, _probabilities(loss)))(name=name)
    _require_task(name, loss)
    if measure == "accuracy":
        return _accuracy(name, metrics, loss)
    if measure == "auc":
        several = {"multi_label": True, "num_labels": loss.sizes[-1]} if _classes(loss) > 1 else {}
        return _made(metrics.AUC, _Reading, _probabilities(loss))(name=name, **several)
    if measure in _SCORES:
        score = _made(metrics.FBetaScore, _MacroScore, _decisions(loss), shares=_SCORES[measure])
        return score(name=name, threshold=0.5)
    top = metrics.SparseTopKCategoricalAccuracy if loss.indices else metrics.TopKCategoricalAccuracy
    return top(k=TOP_K, name=name)


def _accuracy(name: MetricName, metrics: Any, loss: Loss) -> Any:
    if loss.task == "binary":
        return _made(metrics.BinaryAccuracy, _Reading, _decisions(loss))(name=name)
    return (metrics.SparseCategoricalAccuracy if loss.indices else metrics.CategoricalAccuracy)(name=name)


def _require_task(name: MetricName, loss: Loss) -> None:
    if name == "binary_accuracy":
        fits = loss.task == "binary"
    elif "categorical" in name or MEASURES[name] == "top_k":
        fits = loss.task == "multiclass"
    else:
        fits = loss.task != "regression"
    if not fits:
        told = {"multiclass": "one class of many", "binary": "yes or no", "regression": "numbers"}[loss.task]
        message = f"{name} does not go with the job's loss, which is of {told}"
        raise InvalidConfiguration(
            message,
            remedy="choose metrics and a loss that go together: one class of many, yes or no, or numbers",
            errors=[{"path": "/eval_metrics", "message": message}],
        )


class _Reading(_Metric):
    """A metric that sees targets and outputs in one form: (n, units), one-hot or 0 and 1, and probabilities."""

    read: Reading

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Count a batch."""
        y_true, y_pred = self.read(y_true, y_pred)
        return super().update_state(y_true, y_pred, sample_weight)


class _MacroScore(_Reading):
    """A score of each class from Keras' counts, averaged over the classes that occur."""

    shares: tuple[float, float]

    def result(self) -> Any:
        """Return the mean."""
        import tensorflow as tf

        hits = tf.convert_to_tensor(self.true_positives)
        false, missed = tf.convert_to_tensor(self.false_positives), tf.convert_to_tensor(self.false_negatives)
        scores = tf.math.divide_no_nan(hits, hits + self.shares[0] * false + self.shares[1] * missed)
        occurs = tf.cast(hits + false + missed > 0, scores.dtype)
        return tf.math.divide_no_nan(tf.reduce_sum(scores * occurs), tf.reduce_sum(occurs))


def _made(metric: Any, mixin: type[_Reading], read: Reading, **attributes: Any) -> Any:
    """Return a class of the metric's Keras with a mixin of this module."""
    return type(metric.__name__, (mixin, metric), {"read": staticmethod(read), **attributes})


def _probabilities(loss: Loss) -> Reading:
    """Return how targets and outputs become (n, units): rows and probabilities."""
    import tensorflow as tf

    units = _classes(loss)

    def read(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        predicted = tf.reshape(tf.cast(y_pred, tf.float32), (-1, units))
        if loss.scores:
            predicted = tf.nn.softmax(predicted) if loss.task == "multiclass" else tf.sigmoid(predicted)
        if loss.indices:
            return tf.one_hot(tf.reshape(tf.cast(y_true, tf.int32), (-1,)), units), predicted
        return tf.reshape(tf.cast(y_true, tf.float32), (-1, units)), predicted

    return read


def _decisions(loss: Loss) -> Reading:
    """Return how targets and outputs become (n, units) of 0 and 1."""
    import tensorflow as tf

    probabilities, units = _probabilities(loss), _classes(loss)

    def read(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        true, predicted = probabilities(y_true, y_pred)
        if loss.task == "multiclass":
            return tf.one_hot(tf.argmax(true, -1), units), tf.one_hot(tf.argmax(predicted, -1), units)
        half = 0.5
        return tf.cast(true > half, tf.float32), tf.cast(predicted > half, tf.float32)

    return read


def _classes(loss: Loss) -> int:
    return loss.sizes[-1] if loss.sizes else 1
