"""A session that takes batches and gradients from elsewhere, as a privacy mechanism gives them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from locex.api import Dataset, PrivateSession
from locex.errors import InvalidConfiguration
from locex.schemas.job import TrainConfig
from locex_keras_builder.kerases import import_tensorflow

CONFIG = TrainConfig(batch_size=16, epochs=2, steps_per_epoch=3)
tf = import_tensorflow()


class Plain:
    """Gives the batches that it is told, and the gradients that the session would have taken."""

    def __init__(self, parts, *epochs):
        self.parts, self.epochs = parts, itertools.cycle(epochs)

    def epoch(self, config):
        assert config == CONFIG
        yield from (np.asarray(batch, np.int64) for batch in next(self.epochs))

    def gradients(self, inputs, targets):
        keras_3 = self.parts.framework == "keras"
        values = [weight.value if keras_3 else weight for weight in self.parts.weights]
        with tf.GradientTape() as tape:
            outputs = self.parts.model(inputs, training=True)
            loss = self.parts.loss(outputs, targets)
        return loss, outputs, [tf.convert_to_tensor(one) for one in tape.gradient(loss, values)]

    def gradients_of_nothing(self):
        return [tf.ones(weight.shape) for weight in self.parts.weights]


def test_what_is_trained_is_told(either, make_session, kit):
    session = make_session(either, train=kit.blobs(examples=90))
    parts = session.differentiable()

    assert isinstance(session, PrivateSession)
    assert (parts.framework, parts.examples) == (either.stem, 90)
    inputs, targets = parts.sample()
    assert inputs.shape[0] == targets.shape[0] == 2
    assert len(parts.weights) == len(parts.model.trainable_weights)


def test_training_with_the_same_batches_and_gradients_is_the_same(either, make_session):
    fields = {"config": CONFIG, "options": {"gradient_clip_norm": 0.3}}
    plain, led = make_session(either, **fields), make_session(either, **fields)
    for session in (plain, led):
        session._model.layers[2].rate = 0.0  # of its drop-out: batches of a group draw otherwise
    batches = []
    gather = plain._train

    class Noted:
        def __len__(self):
            return len(gather)

        def __call__(self, index, generator):
            batches.extend(index.tolist())
            return gather(index, generator)

    plain._train = Noted()
    wanted = plain.fit(CONFIG, server_round=1, proximal_mu=0.5)
    led.take_gradients_from(Plain(led.differentiable(), batches[:3], batches[3:]))

    found = led.fit(CONFIG, server_round=1, proximal_mu=0.5)

    assert found.metrics == pytest.approx(wanted.metrics, rel=1e-4)
    for name, tensor in plain.get_parameters().items():
        np.testing.assert_allclose(led.get_parameters()[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_step_without_examples_is_a_step(either, make_session, kit):
    session = make_session(either, optimizer=kit.optimizer("sgd", learning_rate=0.5))
    session.take_gradients_from(Plain(session.differentiable(), [[]]))
    weights = session.differentiable().weights[1:]  # the first has a penalty of its own
    before = [np.array(one) for one in weights]

    result = session.fit(CONFIG, server_round=1)

    assert (result.examples, result.metrics) == (0, {})
    for old, new in zip(before, weights, strict=True):
        np.testing.assert_allclose(old - np.array(new), 2 * 0.5, rtol=1e-4)


def test_examples_are_augmented_alone(either, make_session):
    seen = []

    def augment(batch, generator):
        seen.append(len(batch))
        return Dataset(batch.x + np.float32(generator.normal()), batch.y)

    session = make_session(either, augment=augment)
    session.take_gradients_from(Plain(session.differentiable(), [[4, 5, 6]]))
    seen.clear()
    session.fit(CONFIG, server_round=1)

    assert seen == [1] * 6


def test_what_needs_other_gradients_is_refused(either, make_session, kit):
    session = make_session(either, options={"compile": True})

    with pytest.raises(InvalidConfiguration) as caught:
        session.take_gradients_from(Plain(session.differentiable()))

    assert caught.value.errors[0]["path"] == "/builder/compile"
