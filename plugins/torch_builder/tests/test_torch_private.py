"""A session that takes batches and gradients from elsewhere, as a privacy mechanism gives them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from locex.api import Dataset, PrivateSession
from locex.errors import InvalidConfiguration
from locex.schemas.job import TrainConfig

CONFIG = TrainConfig(batch_size=16, epochs=2, steps_per_epoch=3)


class Plain:
    """Gives the batches that it is told, and the gradients that the session would have taken."""

    def __init__(self, parts, *epochs):
        self.parts, self.epochs, self.modes = parts, itertools.cycle(epochs), []

    def epoch(self, config):
        assert config == CONFIG
        yield from (np.asarray(batch, np.int64) for batch in next(self.epochs))

    def gradients(self, inputs, targets):
        import torch

        self.modes.append(self.parts.model.training)
        outputs = self.parts.model(inputs)
        loss = self.parts.loss(outputs, targets)
        return loss.detach(), outputs.detach(), torch.autograd.grad(loss, self.parts.weights)

    def gradients_of_nothing(self):
        import torch

        return [torch.ones_like(weight) for weight in self.parts.weights]


def test_what_is_trained_is_told(mlp, make_session, kit):
    session = make_session(mlp, train=kit.blobs(examples=90))
    parts = session.differentiable()

    assert isinstance(session, PrivateSession)
    assert (parts.framework, parts.examples) == ("torch", 90)
    assert [tuple(one.shape) for one in parts.weights] == [one.shape for one in session.get_parameters().values()]
    inputs, targets = parts.sample()
    assert (inputs.shape, targets.shape) == ((2, 8), (2,))


def test_training_with_the_same_batches_and_gradients_is_the_same(mlp, make_session):
    fields = {"config": CONFIG, "options": {"gradient_clip_norm": 0.3}}
    plain, led = make_session(mlp, **fields), make_session(mlp, **fields)
    batches = []
    step = plain._train.examples.batch

    def noted(index, generator):
        batches.append(index.tolist())
        return step(index, generator)

    plain._train.examples.batch = noted
    wanted = plain.fit(CONFIG, server_round=1, proximal_mu=0.5)
    source = Plain(led.differentiable(), batches[:3], batches[3:])
    led.take_gradients_from(source)

    found = led.fit(CONFIG, server_round=1, proximal_mu=0.5)

    assert found.metrics == pytest.approx(wanted.metrics)
    assert all(source.modes)
    for name, tensor in plain.get_parameters().items():
        np.testing.assert_allclose(led.get_parameters()[name], tensor, rtol=1e-6, atol=1e-7)


def test_a_step_without_examples_is_a_step(mlp, make_session, kit):
    session = make_session(mlp, optimizer=kit.optimizer(lr=0.5), scheduler=kit.scheduler("steplr", step_size=1))
    session.take_gradients_from(Plain(session.differentiable(), [[]]))
    before = session.get_parameters()

    result = session.fit(CONFIG, server_round=1)

    assert (result.examples, result.metrics) == (0, {})
    for name, tensor in session.get_parameters().items():
        np.testing.assert_allclose(before[name] - tensor, 0.5 + 0.05, rtol=1e-4)  # the rate falls after each epoch


def test_examples_are_augmented_alone(mlp, make_session):
    seen = []

    def augment(batch, generator):
        seen.append(len(batch))
        return Dataset(batch.x + np.float32(generator.normal()), batch.y)

    session = make_session(mlp, augment=augment)
    session.take_gradients_from(Plain(session.differentiable(), [[4, 5, 6]]))
    seen.clear()
    session.fit(CONFIG, server_round=1)

    assert seen == [1] * 6


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"optimizer": ("lbfgs", {"lr": 0.1})}, "/optimizer_config/optimizer"),
        ({"optimizer": ("sparseadam", {"lr": 0.1})}, "/optimizer_config/optimizer"),
        ({"options": {"mixed_precision": "bfloat16"}}, "/builder/mixed_precision"),
        ({"scheduler": ("reducelronplateau", {"monitor": "loss"})}, "/scheduler_config"),
    ],
)
def test_what_needs_other_gradients_is_refused(mlp, make_session, kit, fields, path):
    made = {
        name: getattr(kit, name)(value[0], **value[1]) if isinstance(value, tuple) else value
        for name, value in fields.items()
    }
    session = make_session(mlp, **made)

    with pytest.raises(InvalidConfiguration) as caught:
        session.take_gradients_from(Plain(session.differentiable()))

    assert caught.value.errors[0]["path"] == path
