"""``dp-sgd`` on Keras models: the gradient of every example, clipped; noise; what is refused."""

import zipfile

import numpy as np
import pytest

from locex.api import Dataset
from locex.errors import InvalidConfiguration, PrivacyRefused
from locex.schemas.job import TrainConfig

ONE_STEP = TrainConfig(batch_size=8, steps_per_epoch=1)


@pytest.fixture(scope="module")
def keras(kit):
    """Keras as the builder imports it; backend and threads are its business."""
    from locex_keras_builder.kerases import import_keras

    return import_keras("keras").module


@pytest.fixture
def models(keras):
    """Functions that make models, by name; the same weights each time."""
    layers = keras.layers

    def sequential(*parts, size=(8,), dtype="float32"):
        def create():
            keras.utils.set_random_seed(3)
            return keras.Sequential([keras.Input(size, dtype=dtype), *parts_of()])

        parts_of = parts[0] if callable(parts[0]) else (lambda: parts)
        return create

    return {
        "mlp": sequential(lambda: [layers.Dense(16, "tanh"), layers.Dense(3)]),
        "cnn": sequential(
            lambda: [
                layers.Conv2D(4, 3, padding="same"),
                layers.GroupNormalization(2),
                layers.ReLU(),
                layers.Flatten(),
                layers.Dense(3),
            ],
            size=(6, 6, 1),
        ),
        "words": sequential(
            lambda: [layers.Embedding(20, 6), layers.LSTM(5), layers.Dense(3)], size=(5,), dtype="int32"
        ),
        "linear": sequential(lambda: [layers.Dense(3)]),
        "wide": sequential(lambda: [layers.Dense(300, use_bias=False)], size=(200,)),
        "penalized": sequential(lambda: [layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.25))]),
        "dropping": sequential(lambda: [layers.Dropout(0.5), layers.Dense(3)]),
        "batch": sequential(lambda: [layers.Dense(6), layers.BatchNormalization(name="bn"), layers.Dense(3)]),
        "active": sequential(lambda: [layers.Dense(6, activity_regularizer="l2", name="talks"), layers.Dense(3)]),
        "adding": sequential(lambda: [layers.ActivityRegularization(l2=0.1), layers.Dense(3)]),
    }


def tokens(examples=40):
    random = np.random.default_rng(0)
    return Dataset(random.integers(0, 20, (examples, 5)).astype(np.int32), random.integers(0, 3, examples))


def by_hand(keras, model, data, batch, norm, expected):
    """The mean of clipped gradients in the model's order, an example at a time, as Abadi et al. write it."""
    import tensorflow as tf

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    clipped = []
    for index in batch:
        values = [weight.value for weight in model.trainable_weights]
        with tf.GradientTape() as tape:
            outputs = model(data.x[index : index + 1], training=True)
            mean = loss(data.y[index : index + 1], outputs)
        gradients = [tf.convert_to_tensor(one).numpy() for one in tape.gradient(mean, values)]
        length = np.sqrt(sum((one**2).sum() for one in gradients))
        clipped.append([one * min(1, norm / length) for one in gradients])
    return [sum(several) / expected for several in zip(*clipped, strict=True)]


def moved(sent, session):
    """What a round took from every trained weight; the learning rate is 1."""
    names = [name for name, one in sent.parameters.items() if one.dtype.kind == "f"]
    assert len(names) == len(session.differentiable().weights)
    return [sent.reference[name] - sent.parameters[name] for name in names]


@pytest.mark.parametrize(
    ("name", "data", "norm"),
    [("mlp", None, 1e-2), ("mlp", None, 1e3), ("cnn", "images", 1.0), ("words", "tokens", 0.5)],
)
def test_a_step_goes_down_the_clipped_gradients_of_each_example(site, session, kit, keras, models, name, data, norm):
    given = {"images": kit.blobs(size=(6, 6, 1)), "tokens": tokens(), None: kit.blobs()}[data]
    batch = [3, 5, 8, 13, 21]
    wanted = by_hand(keras, models[name](), given, batch, norm, expected=8)
    trained = session("keras", models[name], given)
    mechanism = site.mechanism(ONE_STEP, max_grad_norm=norm, normal=kit.silent, choice=kit.always(batch))
    mechanism.prepare(trained)

    sent = kit.train(mechanism, trained, ONE_STEP)

    for found, gradient in zip(moved(sent, trained), wanted, strict=True):
        np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=2e-6)


def test_batches_too_large_for_memory_are_clipped_in_parts(site, session, kit, models, monkeypatch):
    from locex_privacy.dp_sgd import keras_gradients

    released = []
    for memory in (keras_gradients.BYTES, 4000):
        monkeypatch.setattr(keras_gradients, "BYTES", memory)
        trained = session("keras", models["mlp"], kit.blobs())
        mechanism = site.mechanism(ONE_STEP, normal=kit.silent, choice=kit.always(list(range(11))))
        mechanism.prepare(trained)
        released.append(moved(kit.train(mechanism, trained, ONE_STEP), trained))

    for first, second in zip(*released, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def test_noise_of_z_times_c_is_shared_by_the_expected_batch(site, session, kit, models):
    trained = session("keras", models["linear"], kit.blobs())
    mechanism = site.mechanism(ONE_STEP, max_grad_norm=0.5, noise_multiplier=3, normal=np.ones, choice=kit.always([]))
    mechanism.prepare(trained)

    for found in moved(kit.train(mechanism, trained, ONE_STEP), trained):
        np.testing.assert_allclose(found, 3 * 0.5 / 8, rtol=1e-5)


def test_noise_reaches_every_weight_and_never_repeats_whatever_the_seed(site, session, kit, keras, models):
    released = []
    for _ in range(2):
        trained = session("keras", models["wide"], kit.blobs(size=(200,)), seed=7)
        mechanism = site.mechanism(ONE_STEP, noise_multiplier=2, choice=kit.always([]))
        mechanism.prepare(trained)
        keras.utils.set_random_seed(0)
        released.append(moved(kit.train(mechanism, trained, ONE_STEP), trained)[0].ravel() * 8)

    for noise in released:
        assert noise.std() == pytest.approx(2, rel=0.02)  # 60,000 values: the standard error is 0.3 %
        assert np.count_nonzero(noise) == noise.size
    assert abs(np.corrcoef(*released)[0, 1]) < 0.03


def test_an_example_without_a_finite_gradient_counts_as_none(site, session, kit, models):
    good = kit.blobs()
    x = good.x.copy()
    x[5] = np.inf
    released = []
    for data, batch in ((good, [3, 8]), (Dataset(x, good.y), [3, 5, 8])):
        trained = session("keras", models["mlp"], data, test=good)
        mechanism = site.mechanism(ONE_STEP, normal=kit.silent, choice=kit.always(batch))
        mechanism.prepare(trained)
        released.append(moved(kit.train(mechanism, trained, ONE_STEP), trained))

    for first, second in zip(*released, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-7)


def test_one_examples_loss_does_not_make_a_round_fail(site, session, kit, models):
    """That a round failed shows, and no noise covers it."""
    good = kit.blobs()
    x = good.x.copy()
    x[5] = np.inf
    trained = session("keras", models["mlp"], Dataset(x, good.y), test=good)
    mechanism = site.mechanism(ONE_STEP, normal=kit.silent, choice=kit.always([5]))
    mechanism.prepare(trained)
    mechanism.before_fit({})

    assert trained.fit(ONE_STEP, server_round=1).metrics == {}


def test_penalties_of_weights_and_fedprox_are_added_to_private_gradients(site, session, kit, models):
    config = TrainConfig(batch_size=8, steps_per_epoch=2)
    trained = session("keras", models["penalized"], kit.blobs(), optimizer=kit.optimizer("keras", rate=0.1))
    mechanism = site.mechanism(config, noise_multiplier=8, normal=np.ones, choice=kit.always([]))
    mechanism.prepare(trained)

    sent = kit.train(mechanism, trained, config, proximal_mu=5.0)

    kernel, bias = moved(sent, trained)
    begin = next(one for one in sent.reference.values() if one.ndim == 2)
    after = begin - 0.1 * (1 + 0.5 * begin)
    after = after - 0.1 * (1 + 0.5 * after + 5.0 * (after - begin))
    np.testing.assert_allclose(kernel, begin - after, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bias, 0.1 + 0.1 * (1 - 5 * 0.1), rtol=1e-5)


def test_layers_that_draw_and_optimizers_with_moments_train(site, session, kit, models):
    config = TrainConfig(batch_size=20, epochs=3)
    trained = session("keras", models["dropping"], kit.blobs(), optimizer=kit.optimizer("keras", "adam", 0.05))
    mechanism = site.mechanism(config, max_grad_norm=10, noise_multiplier=0.05)
    mechanism.prepare(trained)
    before = trained.evaluate(config).loss

    for server_round in (1, 2, 3):
        kit.train(mechanism, trained, config, server_round)

    assert trained.evaluate(config).loss < before / 2
    assert [event["steps"] for event in site.events()] == [6, 6, 6]


def test_examples_are_augmented_one_by_one(site, session, kit, models):
    seen = []

    def augment(batch, generator):
        seen.append(len(batch))
        return Dataset(batch.x + generator.normal(size=batch.x.shape).astype(np.float32), batch.y)

    trained = session("keras", models["mlp"], kit.blobs(), augment=augment)
    mechanism = site.mechanism(ONE_STEP, choice=kit.always([1, 2, 3]))
    mechanism.prepare(trained)
    seen.clear()
    kit.train(mechanism, trained, ONE_STEP)

    assert seen == [1, 1, 1]


@pytest.mark.parametrize("name", ["dropping", "mlp"])
def test_draws_of_the_training_are_not_those_of_the_jobs_seed(site, session, kit, models, name):
    def noisy(batch, generator):
        return Dataset(batch.x + generator.normal(size=batch.x.shape).astype(np.float32), batch.y)

    released = []
    for _ in range(2):
        trained = session("keras", models[name], kit.blobs(), augment=None if name == "dropping" else noisy, seed=7)
        mechanism = site.mechanism(ONE_STEP, normal=kit.silent, choice=kit.always(list(range(20))))
        mechanism.prepare(trained)
        tensors = moved(kit.train(mechanism, trained, ONE_STEP), trained)
        released.append(np.concatenate([one.ravel() for one in tensors]))

    assert not np.allclose(*released)


# --- what is refused


@pytest.mark.parametrize(
    ("name", "message", "remedy"),
    [
        ("batch", r"^bn \(BatchNormalization\)", "GroupNormalization"),
        ("active", r"^talks \(Dense\) adds a penalty of its outputs", "activity_regularizer"),
        ("adding", "adds a penalty of its outputs", "add_loss"),
    ],
)
def test_models_without_private_gradients_are_refused(site, session, kit, models, name, message, remedy):
    trained = session("keras", models[name], kit.blobs())

    with pytest.raises(PrivacyRefused, match=message) as caught:
        site.mechanism(ONE_STEP).prepare(trained)

    assert remedy in caught.value.remedy


@pytest.mark.parametrize("trainable", [False, True])
def test_a_layer_that_keeps_statistics_is_refused(site, session, kit, keras, trainable):
    class Keeping(keras.layers.Layer):
        def build(self, shape):
            self.kept = self.add_weight(shape=shape[1:], trainable=trainable, name="kept")
            self.built = True

        def call(self, inputs, training=False):
            if training:
                self.kept.assign_add(keras.ops.sum(inputs, axis=0))
            return inputs

    def create():
        return keras.Sequential([keras.Input((8,)), Keeping(), keras.layers.Dense(3)])

    trained = session("keras", create, kit.blobs())

    with pytest.raises(PrivacyRefused, match=r"keeps .*kept of its training data"):
        site.mechanism(ONE_STEP).prepare(trained)


def test_a_saved_model_of_tf_keras_is_refused(site, session, kit, tmp_path):
    from locex_keras_builder.kerases import import_keras, quiet

    old = import_keras("tf_keras").module
    model = old.Sequential([old.layers.Input((8,)), old.layers.Dense(3)])
    with quiet():
        model.save(tmp_path / "saved", save_format="tf")
    with zipfile.ZipFile(tmp_path / "saved.zip", "w") as archive:
        for path in (tmp_path / "saved").rglob("*"):
            archive.write(path, path.relative_to(tmp_path))
    trained = session("keras", None, kit.blobs(), artefact=tmp_path / "saved.zip")

    with pytest.raises(PrivacyRefused, match="a SavedModel, which tf_keras trains") as caught:
        site.mechanism(ONE_STEP).prepare(trained)

    assert ".keras file" in caught.value.remedy


def test_ghost_clipping_is_pytorchs(site, session, kit, models):
    with pytest.raises(PrivacyRefused, match="for PyTorch models only"):
        site.mechanism(ONE_STEP, ghost_clipping=True).prepare(session("keras", models["mlp"], kit.blobs()))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"options": {"mixed_precision": "bfloat16"}}, "/builder/mixed_precision"),
        ({"options": {"compile": True}}, "/builder/compile"),
        ({"scheduler": "earlystopping"}, "/scheduler_config"),
    ],
)
def test_options_that_would_tell_of_the_data_are_refused(site, session, kit, models, fields, path):
    if "scheduler" in fields:
        fields = {"scheduler": kit.scheduler("keras", fields["scheduler"])}
    trained = session("keras", models["mlp"], kit.blobs(), **fields)

    with pytest.raises(InvalidConfiguration) as caught:
        site.mechanism(ONE_STEP).prepare(trained)

    assert caught.value.errors[0]["path"] == path
