from __future__ import annotations

import inspect
import json
import logging
from importlib.metadata import entry_points

import numpy as np
import pluggy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locex import hookspecs
from locex.errors import InvalidConfiguration, LocexError
from locex.schemas.base import validate
from locex_keras_builder.kerases import import_keras
from locex_keras_builder.target import CompileTarget, PersistentCallback

CLASSES = {
    "earlystopping": "EarlyStopping",
    "reducelronplateau": "ReduceLROnPlateau",
    "terminateonnan": "TerminateOnNaN",
}
KERASES = ["keras", "tf_keras"]
both = pytest.mark.parametrize("keras", KERASES)


def plugin(name):
    (entry,) = entry_points(group="locex.scheduler", name=f"keras.{name}")
    return entry.load()()


def make(name, keras, /, **fields):
    chosen = plugin(name)
    config = validate(chosen.locex_config_model(), fields)
    return chosen.locex_create_scheduler(config, CompileTarget(import_keras(keras)))


class Scripted:
    """A model whose weight is the number of the epoch, and whose rate callbacks may reduce."""

    def __init__(self, keras):
        module = import_keras(keras).module
        self.optimizer = module.optimizers.SGD(1.0)
        self.metrics = []
        self.stop_training = False
        self.weight = 0

    def get_weights(self):
        return [np.array(self.weight)]

    def set_weights(self, weights):
        self.weight = int(weights[0])

    def round(self, callback, values, name="val_loss"):
        """Train as ``fit`` does, one epoch for each value; return how many epochs it took."""
        callback.set_model(self)
        self.stop_training = False
        callback.on_train_begin()
        epochs = 0
        for epoch, value in enumerate(values):
            epochs += 1
            self.weight += 1
            callback.on_epoch_end(epoch, {name: value})
            if self.stop_training:
                break
        callback.on_train_end()
        return epochs


def constructor(name):
    kind = getattr(import_keras("keras").module.callbacks, CLASSES[name])
    return {p.name: p.default for p in inspect.signature(kind).parameters.values() if p.name != "kwargs"}


@pytest.mark.parametrize("name", CLASSES)
def test_a_callback_takes_what_keras_takes(name):
    fields = {field: info.default for field, info in plugin(name).locex_config_model().model_fields.items()}
    assert fields == constructor(name)


@both
def test_every_field_reaches_the_callback(keras):
    stopping = {"monitor": "val_mae", "min_delta": "0.5", "patience": "3", "mode": "min", "baseline": "2"}
    made = make("earlystopping", keras, **stopping, restore_best_weights="True", start_from_epoch="4")
    made.set_model(Scripted(keras))
    assert (made.monitor, abs(made.min_delta), made.patience, made.baseline) == ("val_mae", 0.5, 3, 2.0)
    assert (made.restore_best_weights, made.start_from_epoch) == (True, 4)
    plateau = {"factor": "0.5", "cooldown": "2", "min_lr": "0.01", "min_delta": "0.0003", "patience": 1, "mode": "max"}
    made = make("reducelronplateau", keras, **plateau)
    assert (made.factor, made.cooldown, made.min_lr, made.min_delta, made.patience) == (0.5, 2, 0.01, 0.0003, 1)
    for name, kind in CLASSES.items():
        made = make(name, keras)
        assert isinstance(made, getattr(import_keras(keras).module.callbacks, kind))
        assert isinstance(made, PersistentCallback)


@both
def test_patience_counts_over_rounds(keras):
    model, callback = Scripted(keras), make("earlystopping", keras, patience=3)
    assert model.round(callback, [1.0, 2.0]) == 2
    assert model.round(callback, [2.0]) == 1
    assert not callback.stopped
    assert model.round(callback, [2.0, 0.1]) == 1
    assert callback.stopped


@both
def test_the_best_value_lasts(keras):
    model, callback = Scripted(keras), make("earlystopping", keras, patience=2)
    model.round(callback, [1.0])
    model.round(callback, [3.0])
    model.round(callback, [2.0])
    assert callback.stopped


@both
@pytest.mark.parametrize("seen", [0, 1, 3])
def test_a_restart_changes_nothing(seen, keras):
    values = [3.0, 2.0, 2.5, 1.0, 1.5, 1.2, 1.1, 0.5]
    steady = make("earlystopping", keras, patience=3, start_from_epoch=2)
    model = Scripted(keras)
    expected = [model.round(steady, [value]) and steady.stopped for value in values]
    told, model = [], Scripted(keras)
    callback = make("earlystopping", keras, patience=3, start_from_epoch=2)
    for index, value in enumerate(values):
        if index == seen:
            state = json.loads(json.dumps(callback.state(), allow_nan=False))
            callback = make("earlystopping", keras, patience=3, start_from_epoch=2)
            callback.restore(state)
        model.round(callback, [value])
        told.append(callback.stopped)
    assert told == expected
    assert expected.index(True) == 6


@both
def test_once_fired_it_stays_so(keras):
    model, callback = Scripted(keras), make("earlystopping", keras, patience=1)
    model.round(callback, [1.0, 2.0])
    restored = make("earlystopping", keras, patience=1)
    assert not restored.stopped
    restored.restore(callback.state())
    assert restored.stopped


@both
def test_the_weights_restored_are_the_round_s(keras):
    model, callback = Scripted(keras), make("earlystopping", keras, patience=9, restore_best_weights=True)
    model.round(callback, [3.0, 1.0, 2.0])
    assert model.weight == 2
    assert "best_weights" not in json.dumps(callback.state())
    model.round(callback, [7.0, 5.0, 4.0, 6.0])  # nothing beats the first round
    assert model.weight == 2 + 3
    model.round(callback, [0.5, 0.7])
    assert model.weight == 5 + 1
    assert callback.best_weights is None


@both
def test_start_from_epoch_counts_all_rounds(keras):
    model, callback = Scripted(keras), make("earlystopping", keras, patience=1, start_from_epoch=3)
    model.round(callback, [1.0, 2.0])
    model.round(callback, [3.0, 9.0])
    assert not callback.stopped
    model.round(callback, [9.0])
    assert callback.stopped


@both
def test_a_baseline_is_watched(keras):
    model, callback = Scripted(keras), make("earlystopping", keras, patience=2, baseline=0.5)
    assert model.round(callback, [2.0, 1.9, 1.8, 1.85]) == 4
    assert callback.stopped


@both
def test_a_plateau_reduces_over_rounds(keras):
    model = Scripted(keras)
    callback = make("reducelronplateau", keras, patience=2, factor=0.5, cooldown=1, min_lr=0.3)
    rates = []
    for value in [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]:
        model.round(callback, [value])
        rates.append(float(model.optimizer.learning_rate))
    assert rates == pytest.approx([1.0, 1.0, 0.5, 0.5, 0.3, 0.3, 0.3])


@both
def test_a_plateau_s_counters_survive_a_restart(keras):
    fields = {"patience": 2, "factor": 0.5, "cooldown": 2}
    values = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.5, 2.0, 2.0, 0.6, 2.0]
    rates, expected = [], []
    model, callback = Scripted(keras), make("reducelronplateau", keras, **fields)
    for value in values:
        restarted = make("reducelronplateau", keras, **fields)
        restarted.restore(json.loads(json.dumps(callback.state(), allow_nan=False)))
        callback = restarted
        model.round(callback, [value])
        rates.append(float(model.optimizer.learning_rate))
    for count in range(1, len(values) + 1):  # Keras' own, in one fit
        model = Scripted(keras)
        model.round(import_keras(keras).module.callbacks.ReduceLROnPlateau(**fields), values[:count])
        expected.append(float(model.optimizer.learning_rate))
    assert rates == expected
    assert rates[-1] == 0.125


@both
@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1", "auc", "top_5_accuracy"])
def test_auto_knows_which_way_is_better(name, keras):
    model, callback = Scripted(keras), make("earlystopping", keras, patience=2, monitor=f"val_{name}")
    model.round(callback, [0.1, 0.2, 0.3, 0.4], name=f"val_{name}")
    assert not callback.stopped
    model.round(callback, [0.3, 0.3], name=f"val_{name}")
    assert callback.stopped
    plateau = make("reducelronplateau", keras, patience=1, monitor=name)
    model.round(plateau, [0.1, 0.2, 0.3], name=name)
    assert float(model.optimizer.learning_rate) == 1.0


@both
@pytest.mark.parametrize("name", ["earlystopping", "reducelronplateau"])
def test_a_monitor_that_is_not_measured_is_refused(name, keras):
    with pytest.raises(InvalidConfiguration, match="'val_f1' is not measured; measured are: val_loss") as caught:
        Scripted(keras).round(make(name, keras, monitor="val_f1"), [1.0])
    assert caught.value.errors[0]["path"] == "/scheduler_config/monitor"


@both
def test_verbose_is_told_in_the_log(keras, caplog, capsys):
    with caplog.at_level(logging.INFO):
        Scripted(keras).round(make("earlystopping", keras, patience=1), [1.0, 2.0])
        assert not caplog.records
        Scripted(keras).round(make("earlystopping", keras, patience=1, verbose="True"), [1.0, 2.0])
        Scripted(keras).round(make("reducelronplateau", keras, patience=1, verbose=1), [1.0, 2.0])
    assert "early stopping after epoch 2: val_loss is 2, was 1" in caplog.text
    assert "learning rate reduced from 1 to 0.1" in caplog.text
    assert not capsys.readouterr().out


@both
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_fails_the_round(value, keras):
    module = import_keras(keras).module
    model = module.Sequential([module.layers.Input((2,)), module.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    x = np.ones((8, 2), np.float32)
    x[6] = value
    callback = make("terminateonnan", keras)
    with pytest.raises(LocexError, match="at batch 4 is") as caught:
        model.fit(x, np.ones(8, np.float32), batch_size=2, shuffle=False, verbose=0, callbacks=[callback])
    assert caught.value.error_code == "training-diverged"
    assert callback.state() == {}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("earlystopping", {"factor": 0.5}),
        ("earlystopping", {"patience": -1}),
        ("earlystopping", {"patience": 1.5}),
        ("earlystopping", {"mode": "most"}),
        ("reducelronplateau", {"factor": 1}),
        ("reducelronplateau", {"baseline": 1}),
        ("reducelronplateau", {"min_lr": -1}),
        ("reducelronplateau", {"step_size": 1}),
        ("terminateonnan", {"monitor": "loss"}),
    ],
)
def test_wrong_fields_are_refused(name, fields):
    with pytest.raises(InvalidConfiguration, match=next(iter(fields))):
        validate(plugin(name).locex_config_model(), fields)


@settings(deadline=None)
@given(
    name=st.sampled_from(["earlystopping", "reducelronplateau"]),
    fields=st.dictionaries(
        st.sampled_from(["monitor", "min_delta", "patience", "mode", "factor", "cooldown", "baseline", "gamma"]),
        st.one_of(st.none(), st.integers(-1, 5), st.floats(0, 1), st.integers(0, 9).map(str), st.text(max_size=5)),
    ),
)
def test_a_configuration_is_valid_json_again_or_refused(name, fields):
    model = plugin(name).locex_config_model()
    try:
        config = validate(model, fields)
    except InvalidConfiguration as error:
        refused = {fault["path"].split("/")[1] for fault in error.errors}
        config = validate(model, {field: value for field, value in fields.items() if field not in refused})
    assert config.patience >= 0
    assert validate(model, json.loads(config.model_dump_json(exclude_none=True))) == config


def test_every_plugin_fits_the_hooks():
    for name in CLASSES:
        manager = pluggy.PluginManager("locex")
        manager.add_hookspecs(hookspecs)
        manager.register(plugin(name))
        manager.check_pending()
        assert all(field.description for field in manager.hook.locex_config_model().model_fields.values())
        assert manager.hook.locex_create_scheduler.get_hookimpls()
