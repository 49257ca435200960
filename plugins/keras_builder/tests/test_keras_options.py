from __future__ import annotations

import numpy as np
import pytest

from locex.errors import InvalidConfiguration
from locex.schemas.job import TrainConfig
from locex_keras_builder.kerases import import_keras

CONFIG = TrainConfig(batch_size=16, epochs=2)


def test_gradients_are_clipped(mlp, make_session, kit):
    train = kit.blobs(examples=16)

    def moved(**options):
        session = make_session(mlp, train=train, optimizer=kit.Optimizers(learning_rate=1.0), options=options)
        before = session.get_parameters()
        session.fit(TrainConfig(batch_size=16), server_round=1)
        after = session.get_parameters()
        return np.concatenate([(after[name] - before[name]).ravel() for name in after])

    free = moved()
    assert np.linalg.norm(free) > 0.02
    assert np.linalg.norm(moved(gradient_clip_norm=0.01)) == pytest.approx(0.01, rel=1e-2)
    np.testing.assert_allclose(moved(gradient_clip_value=0.003), np.clip(free, -0.003, 0.003), atol=1e-5)
    with pytest.raises(InvalidConfiguration, match="exclude each other"):
        moved(gradient_clip_norm=0.01, gradient_clip_value=0.001)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"compile": True}, marks=pytest.mark.slow),
        {"mixed_precision": "bfloat16"},
        {"mixed_precision": "float16"},
    ],
)
def test_options_train_as_well_and_leave_the_model_s_types(options, tmp_path, mlp, make_session):
    told = []
    session = make_session(mlp, options=options, warn=told.append)
    assert session.fit(TrainConfig(batch_size=16, epochs=5), server_round=1).metrics["accuracy"] > 0.8
    session.save_state(tmp_path / "state")
    resumed = make_session(mlp, options=options)
    resumed.load_state(tmp_path / "state")
    (path,) = session.export(tmp_path / "out", ["safetensors"])
    assert all(array.dtype == np.float32 for array in make_session(path).get_parameters().values())
    assert make_session(path).evaluate(CONFIG).metrics == session.evaluate(CONFIG).metrics
    assert not told


def test_xla_that_cannot_compile_falls_back(tmp_path, make_session):
    keras = import_keras("keras").module
    layers = keras.layers
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3, name="output")])
    model.save(tmp_path / "m.keras")
    told = []
    session = make_session(tmp_path / "m.keras", options={"compile": True}, warn=told.append)
    import tensorflow as tf

    # XLA knows no text
    plain = session._execution._steps._loss

    def loss(y, outputs):
        return plain(y, outputs) + 0.0 * tf.reduce_sum(tf.cast(tf.strings.length(tf.strings.as_string(y)), tf.float32))

    session._execution._steps._loss = loss
    assert session.fit(CONFIG, server_round=1).examples == 90
    assert len(told) == 1
    assert "compile was given up" in told[0]


def test_a_saved_model_computes_as_it_was_saved(models, make_session):
    told = []
    session = make_session(models / "tf_keras.keras", options={"mixed_precision": "bfloat16"}, warn=told.append)
    assert session.fit(CONFIG, server_round=1).examples == 90
    assert "mixed_precision was ignored" in told[0]
