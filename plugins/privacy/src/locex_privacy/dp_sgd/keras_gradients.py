"""Keras' half of DP-SGD: gradients of single examples by TensorFlow's vectorized map, clipped and summed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from locex.api import Differentiable
from locex.errors import LocexError, PrivacyRefused

if TYPE_CHECKING:
    from locex.api import Array

BYTES = 2**28
"""Memory that gradients of single examples may take: larger batches are clipped in parts."""


class KerasGradients:
    """Implements `locex_privacy.dp_sgd.source.ClippedGradients` for a model of Keras 3 on TensorFlow.

    The model is given one example at a time, so that none of them can reach another's gradient.
    """

    sizes: Sequence[tuple[int, ...]]

    def __init__(self, parts: Differentiable, max_norm: float) -> None:
        """Try the model on a few examples; raise `PrivacyRefused` where it keeps something of them."""
        self._model, self._loss = parts.model, parts.loss
        self._weights = list(parts.weights)
        self.sizes = [tuple(weight.shape) for weight in self._weights]
        self._norm = max_norm
        self._part = max(1, BYTES // (4 * sum(int(np.prod(size)) for size in self.sizes)))
        self._require_layers()
        inputs, targets = parts.sample()
        self._require_penalties_of_weights(inputs)
        self._traced = self._chosen(inputs, targets)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Do nothing: the model is not changed."""
        yield

    def sums(self, inputs: Array, targets: Array) -> tuple[float, Any, list[Any]]:
        """Return the mean of the losses that are finite, outputs, and the sums of clipped gradients."""
        parts = [
            self._traced(inputs[start : start + self._part], targets[start : start + self._part])
            for start in range(0, len(inputs), self._part)
        ]
        losses = np.concatenate([one[0].numpy() for one in parts])
        finite = losses[np.isfinite(losses)]
        sums = [tf.add_n(list(several)) for several in zip(*(one[2] for one in parts), strict=True)]
        return float((finite if len(finite) else losses).mean()), tf.concat([one[1] for one in parts], 0), sums

    def released(self, sums: Sequence[Any] | None, noise: Sequence[Array], examples: float) -> list[Any]:
        """Return (sums + noise) / examples."""
        drawn = [tf.constant(one, tf.as_dtype(weight.dtype)) for one, weight in zip(noise, self._weights, strict=True)]
        if sums is not None:
            drawn = [one + total for one, total in zip(drawn, sums, strict=True)]
        return [one / tf.cast(examples, one.dtype) for one in drawn]

    def _chosen(self, inputs: Array, targets: Array) -> Any:
        """Return the traced sums: all examples at once, or one after the other where TensorFlow cannot."""
        kept = self._state()
        signature = [tf.TensorSpec((None, *one.shape[1:]), one.dtype) for one in (inputs, targets)]
        failed: Exception | None = None
        for mapped in (_at_once, _one_by_one):
            traced = tf.function(self._sums_by(mapped), input_signature=signature, autograph=False)
            try:
                traced(inputs, targets)
            except (LocexError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 -- operations that cannot be mapped raise in their own ways
                failed = error
            else:
                self._require_unchanged(kept)
                return traced
        lines = str(failed).strip().splitlines() or [type(failed).__name__]
        raise PrivacyRefused(
            f"TensorFlow cannot take this model's gradients example by example: {lines[0][:300]}",
            remedy="upload a model that takes batches of one example",
        ) from failed

    def _sums_by(self, mapped: Callable[[Callable[[Any], Any], Any], Any]) -> Callable[[Any, Any], Any]:
        def sums(inputs: Any, targets: Any) -> Any:
            losses, outputs, gradients = mapped(self._clipped, (inputs, targets))
            return losses, outputs, [tf.reduce_sum(one, axis=0) for one in gradients]

        return sums

    def _clipped(self, example: tuple[Any, Any]) -> tuple[Any, Any, list[Any]]:
        """Return loss, output and clipped gradients of one example."""
        x, y = (tf.expand_dims(one, 0) for one in example)
        values = [weight.value for weight in self._weights]
        with tf.GradientTape() as tape:
            outputs = tf.cast(self._model(x, training=True), tf.float32)
            loss = tf.cast(self._loss(outputs, y), tf.float32)
        gradients = [
            tf.zeros_like(value) if one is None else tf.convert_to_tensor(one)
            for one, value in zip(tape.gradient(loss, values), values, strict=True)
        ]
        norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(tf.cast(one, tf.float32))) for one in gradients]))
        factor, finite = tf.minimum(1.0, self._norm / (norm + 1e-6)), tf.math.is_finite(norm)
        clipped = [tf.where(finite, one * tf.cast(factor, one.dtype), tf.zeros_like(one)) for one in gradients]
        return loss, outputs[0], clipped

    def _require_layers(self) -> None:
        for layer in self._model._flatten_layers():  # noqa: SLF001 -- all depths
            if isinstance(layer, keras.layers.BatchNormalization):
                raise PrivacyRefused(
                    f"{layer.name} (BatchNormalization) normalizes every example by the others of its batch, and "
                    "keeps their averages",
                    remedy="put keras.layers.GroupNormalization in its place, and upload the model anew",
                )
            if getattr(layer, "activity_regularizer", None) is not None:
                raise self._penalized(f"{layer.name} ({type(layer).__name__})")

    def _require_penalties_of_weights(self, inputs: Array) -> None:
        before = len(self._model.losses)
        kept = self._state()
        self._model(inputs, training=True)
        self._require_unchanged(kept)
        if len(self._model.losses) != before:
            raise self._penalized("the model")

    @staticmethod
    def _penalized(what: str) -> PrivacyRefused:
        return PrivacyRefused(
            f"{what} adds a penalty of its outputs to the loss, which is not clipped with it",
            remedy="leave out activity_regularizer and add_loss; regularizers of weights may stay",
        )

    def _state(self) -> dict[str, Array]:
        """Return what the model must leave as it is without an optimizer; seeds tell nothing of the data."""
        return {
            variable.path: np.array(variable)
            for variable in self._model.variables
            if not variable.path.endswith("seed_generator_state")
        }

    def _require_unchanged(self, kept: dict[str, Array]) -> None:
        for path, value in self._state().items():
            if not np.array_equal(value, kept[path], equal_nan=True):
                raise PrivacyRefused(
                    f"the model keeps {path} of its training data, which no noise covers",
                    remedy="upload a model whose layers keep no statistics of the data",
                )


def _at_once(of_one: Callable[[Any], Any], examples: Any) -> Any:
    return tf.vectorized_map(of_one, examples, fallback_to_while_loop=True, warn=False)


def _one_by_one(of_one: Callable[[Any], Any], examples: Any) -> Any:
    # the types of a result, found without running it
    kinds = tf.nest.map_structure(lambda one: one.dtype, _result(of_one, examples))
    return tf.map_fn(of_one, examples, fn_output_signature=kinds)


def _result(of_one: Callable[[Any], Any], examples: Any) -> Any:
    def first(x: Any, y: Any) -> Any:
        return of_one((x, y))

    specs = [tf.TensorSpec(one.shape[1:], one.dtype) for one in examples]
    return tf.function(first, autograph=False).get_concrete_function(*specs).structured_outputs
