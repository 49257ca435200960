"""Training and test steps as TensorFlow functions: one call takes several batches, so that calls cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from locex_keras_builder.kerases import Keras, import_tensorflow

if TYPE_CHECKING:
    from locex.api import Array

tf = import_tensorflow()


@dataclass(frozen=True, slots=True)
class Clipping:
    """Bounds of the gradients: of their norm over all weights, and of each element."""

    norm: float | None = None
    value: float | None = None

    def __call__(self, gradients: list[Any]) -> list[Any]:
        """Return the gradients within the bounds."""
        if self.norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.norm)
        if self.value is not None:
            gradients = [None if one is None else tf.clip_by_value(one, -self.value, self.value) for one in gradients]
        return gradients


class Steps:
    """Steps of one model. ``x`` and ``y`` are (batches, examples, …); a step gives its mean loss and its outputs."""

    def __init__(self, keras: Keras, model: Any, loss: Callable[..., Any], optimizer: Any, clipping: Clipping) -> None:
        """Take a model with a built optimizer; functions are traced at their first call."""
        self._keras, self._model, self._loss = keras, model, loss
        self._optimizer, self._clipping = optimizer, clipping
        self._weights = list(model.trainable_weights)
        self._anchors: list[Any] = []
        self.compile(jit=False)

    def compile(self, *, jit: bool) -> None:
        """Trace anew at the next call; ``jit``: with XLA."""
        self._traced: dict[str, Any] = {}
        self._jit = jit

    def hold_near(self) -> None:
        """Take the weights as they are as those from which FedProx's term measures the distance."""
        if not self._anchors:
            self._anchors = [tf.Variable(weight, trainable=False) for weight in self._weights]
        for anchor, weight in zip(self._anchors, self._weights, strict=True):
            anchor.assign(weight)

    def train(self, x: Array, y: Array, proximal_mu: float = 0.0) -> tuple[Array, Any]:
        """Make a step per batch; return losses (batches,) without FedProx's term, and outputs (batches, examples, …).

        ``proximal_mu`` over 0 needs `hold_near` before.
        """
        step = self._near_step if proximal_mu > 0 else self._step
        losses, outputs = self._call(step, x, y, tf.constant(proximal_mu, tf.float32))
        return losses.numpy(), outputs

    def test(self, x: Array, y: Array) -> tuple[Array, Any]:
        """Return losses and outputs of the model as it is."""
        losses, outputs = self._call(self._test_step, x, y, tf.constant(0.0))
        return losses.numpy(), outputs

    def descend(self, gradients: Sequence[Any], proximal_mu: float) -> float:
        """Make a step with gradients of the loss that another made; return the penalties of weights.

        Penalties, FedProx's term and clipping follow: they depend on nothing but weights and these gradients.
        """
        if "descend" not in self._traced:
            signature = [[tf.TensorSpec(weight.shape, weight.dtype) for weight in self._weights]]
            signature.append(tf.TensorSpec((), tf.float32))
            self._traced["descend"] = tf.function(self._descend_by, input_signature=signature, autograph=False)
        if not self._anchors:
            self.hold_near()
        return float(self._traced["descend"](list(gradients), tf.constant(proximal_mu, tf.float32)))

    def _descend_by(self, gradients: Any, mu: Any) -> Any:
        with tf.GradientTape() as tape:
            penalties = self._penalties()
            objective = penalties + 0.5 * mu * self._distance()
        pulls = tape.gradient(objective, self._values())
        self._apply(self._clipped([one + pull for one, pull in zip(gradients, pulls, strict=True)]))
        return penalties

    def _call(self, step: Callable[..., Any], x: Array, y: Array, mu: Any) -> Any:
        name = step.__name__
        if name not in self._traced:
            self._traced[name] = self._looped(step, x, y)
        return self._traced[name](x, y, mu)

    def _looped(self, step: Callable[..., Any], x: Array, y: Array) -> Any:
        one = tf.function(step, jit_compile=True, autograph=False) if self._jit else step
        # open sizes: the last, smaller batch needs no trace of its own
        signature = [tf.TensorSpec((None, None, *array.shape[2:]), array.dtype) for array in (x, y)]

        def loop(x: Any, y: Any, mu: Any) -> Any:
            return tf.map_fn(
                lambda batch: one(*batch, mu),
                (x, y),
                fn_output_signature=(tf.float32, tf.float32),
                parallel_iterations=1,
            )

        return tf.function(loop, input_signature=[*signature, tf.TensorSpec((), tf.float32)], autograph=False)

    def _step(self, x: Any, y: Any, mu: Any) -> Any:
        return self._descend(x, y, mu, near=False)

    def _near_step(self, x: Any, y: Any, mu: Any) -> Any:
        return self._descend(x, y, mu, near=True)

    def _test_step(self, x: Any, y: Any, _mu: Any) -> Any:
        outputs = tf.cast(self._model(x, training=False), tf.float32)
        return self._total(y, outputs), outputs

    def _descend(self, x: Any, y: Any, mu: Any, *, near: bool) -> Any:
        with tf.GradientTape() as tape:
            outputs = tf.cast(self._model(x, training=True), tf.float32)
            loss = self._total(y, outputs)
            objective = loss + 0.5 * mu * self._distance() if near else loss
            scaled = self._scale(objective)
        gradients = tape.gradient(scaled, self._values())
        self._apply(self._clipped(gradients))
        return loss, outputs

    def _values(self) -> list[Any]:
        return [weight.value for weight in self._weights] if self._keras.name == "keras" else self._weights

    def _total(self, y: Any, outputs: Any) -> Any:
        # Keras adds the penalties of regularizers to what it calls loss
        return tf.cast(self._loss(y, outputs), tf.float32) + self._penalties()

    def _penalties(self) -> Any:
        return tf.add_n([tf.constant(0.0), *(tf.reduce_sum(tf.cast(one, tf.float32)) for one in self._model.losses)])

    def _distance(self) -> Any:
        return tf.add_n(
            [
                tf.reduce_sum(tf.square(tf.convert_to_tensor(weight) - anchor))
                for weight, anchor in zip(self._weights, self._anchors, strict=True)
            ]
        )

    def _scale(self, loss: Any) -> Any:
        return self._optimizer.scale_loss(loss) if self._keras.name == "keras" else loss

    def _clipped(self, gradients: list[Any]) -> list[Any]:
        if self._clipping == Clipping():
            return gradients
        scale = self._scale(tf.constant(1.0))
        plain = [None if one is None else one / scale for one in gradients]
        return [None if one is None else one * scale for one in self._clipping(plain)]

    def _apply(self, gradients: list[Any]) -> None:
        if self._keras.name == "keras":
            self._optimizer.apply(gradients, self._weights)
        else:
            self._optimizer.apply_gradients(zip(gradients, self._weights, strict=True))
