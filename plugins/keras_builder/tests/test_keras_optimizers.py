from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib.metadata import entry_points

import pluggy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from locex import hookspecs
from locex.errors import InvalidConfiguration
from locex.schemas.base import schema_of, validate
from locex_keras_builder.kerases import import_keras
from locex_keras_builder.target import CompileTarget

CLASSES = {
    "sgd": "SGD",
    "rmsprop": "RMSprop",
    "adam": "Adam",
    "adadelta": "Adadelta",
    "adagrad": "Adagrad",
    "adamax": "Adamax",
    "nadam": "Nadam",
    "ftrl": "Ftrl",
}
KERASES = ["keras", "tf_keras"]
EVERY_FIELD = {
    "learning_rate": "0.25",
    "weight_decay": "0.5",
    "clipnorm": 2,
    "use_ema": "True",
    "ema_momentum": 0.5,
    "ema_overwrite_frequency": "7",
    "name": "mine",
    "momentum": 0.5,
    "nesterov": True,
    "rho": 0.5,
    "epsilon": 1e-3,
    "centered": "true",
    "beta_1": 0.5,
    "beta_2": "0.5",
    "amsgrad": "True",
    "initial_accumulator_value": 0.5,
    "learning_rate_power": -0.25,
    "l1_regularization_strength": 0.5,
    "l2_regularization_strength": 0.5,
    "l2_shrinkage_regularization_strength": 0.5,
    "beta": 0.5,
}
"""Fields of the public description that some optimizer of Keras has; two further ways to clip exclude clipnorm."""


def plugin(name):
    (entry,) = entry_points(group="locex.optimizer", name=f"keras.{name}")
    return entry.load()()


def make(name, keras, /, **fields):
    chosen, warnings = plugin(name), []
    target = CompileTarget(import_keras(keras), warn=warnings.append)
    made = chosen.locex_create_optimizer(validate(chosen.locex_config_model(), fields), target)
    return made, target, warnings


def constructor(name, keras):
    kind = getattr(import_keras(keras).module.optimizers, CLASSES[name])
    return {p.name: p.default for p in inspect.signature(kind).parameters.values() if p.name != "kwargs"}


def defaults(name):
    return {field: info.default for field, info in plugin(name).locex_config_model().model_fields.items()}


@pytest.mark.parametrize("name", CLASSES)
def test_an_optimizer_takes_what_keras_takes(name):
    assert defaults(name) == constructor(name, "keras") | {"jit_compile": None}


@pytest.mark.parametrize("name", CLASSES)
def test_only_absent_fields_leave_a_default_to_tf_keras(name):
    own, theirs = defaults(name), constructor(name, "tf_keras")
    differ = {field for field in own.keys() & theirs.keys() if own[field] != theirs[field]}
    assert differ <= {"name", "jit_compile", "ema_overwrite_frequency"}
    assert all(own[field] is None for field in differ)
    assert own.keys() - theirs.keys() == {"loss_scale_factor", "gradient_accumulation_steps"}


@pytest.mark.parametrize("keras", KERASES)
@pytest.mark.parametrize("name", CLASSES)
def test_every_field_reaches_the_optimizer(name, keras):
    fields = {field: value for field, value in EVERY_FIELD.items() if field in defaults(name)}
    made, _, warnings = make(name, keras, **fields)
    expected = validate(plugin(name).locex_config_model(), fields).model_dump(include=set(fields))
    assert isinstance(made, getattr(import_keras(keras).module.optimizers, CLASSES[name]))
    assert type(made).__name__ == CLASSES[name]
    assert {field: made.get_config()[field] for field in fields} == pytest.approx(expected)
    assert not warnings


@pytest.mark.parametrize("keras", KERASES)
@pytest.mark.parametrize("name", CLASSES)
def test_without_fields_it_is_the_framework_s_own(name, keras):
    made, _, warnings = make(name, keras)
    own = getattr(import_keras(keras).module.optimizers, CLASSES[name])()
    assert made.get_config() | {"name": ""} == own.get_config() | {"name": ""}
    assert not warnings


def test_the_description_s_fields_are_all_somewhere():
    described = {*EVERY_FIELD, "clipvalue", "global_clipnorm", "jit_compile"}
    assert described <= {field for name in CLASSES for field in defaults(name)}


@pytest.mark.parametrize("keras", KERASES)
@pytest.mark.parametrize("field", ["clipvalue", "global_clipnorm"])
def test_other_ways_to_clip(field, keras):
    made, _, _ = make("sgd", keras, **{field: "0.5"})
    assert made.get_config()[field] == 0.5


def test_jit_compile_goes_where_the_keras_takes_it():
    for given_, expected in ((None, None), ("True", True), (False, False)):
        _, target, warnings = make("adam", "keras", jit_compile=given_)
        assert target.jit_compile is expected
        assert not warnings
    _, target, _ = make("adam", "tf_keras", jit_compile=False)
    assert target.jit_compile is None


def test_what_tf_keras_lacks_is_left_out_with_a_warning():
    made, _, warnings = make("adam", "tf_keras", gradient_accumulation_steps=2, loss_scale_factor=8.0)
    assert "gradient_accumulation_steps" not in made.get_config()
    assert [text.split()[0] for text in warnings] == [
        "optimizer_config.gradient_accumulation_steps",
        "optimizer_config.loss_scale_factor",
    ]
    made, _, warnings = make("adam", "keras", gradient_accumulation_steps=2)
    assert made.gradient_accumulation_steps == 2
    assert not warnings


def test_both_names_of_the_learning_rate():
    model = plugin("adam").locex_config_model()
    assert validate(model, {"lr": "0.005"}) == validate(model, {"learning_rate": 0.005})
    published = Draft202012Validator(schema_of(model))
    for written in ({"lr": "0.005", "amsgrad": "True"}, {"learning_rate": "0.005"}):
        assert not list(published.iter_errors(written))
    with pytest.raises(InvalidConfiguration):
        validate(model, {"lr": 1, "learning_rate": 1})


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("adam", {"rho": 1}),
        ("adam", {"lambd": 1}),
        ("adam", {"learning_rate": 0}),
        ("adam", {"lr": "nan"}),
        ("adam", {"beta_1": 1.0}),
        ("adam", {"weight_decay": -1}),
        ("sgd", {"momentum": 1.5}),
        ("sgd", {"clipnorm": 0}),
        ("ftrl", {"learning_rate_power": 0.5}),
        ("rmsprop", {"ema_overwrite_frequency": 0}),
        ("adagrad", {"gradient_accumulation_steps": 1}),
    ],
)
def test_wrong_fields_are_refused(name, fields):
    with pytest.raises(InvalidConfiguration, match=next(iter(fields))):
        validate(plugin(name).locex_config_model(), fields)


def test_an_unknown_field_is_told_the_allowed():
    with pytest.raises(InvalidConfiguration, match=r"allowed here are: .*beta_1.*learning_rate"):
        validate(plugin("adam").locex_config_model(), {"betas": [0.9, 0.999]})


@pytest.mark.parametrize("keras", KERASES)
def test_a_combination_that_keras_refuses_is_explained(keras):
    with pytest.raises(InvalidConfiguration, match="global_clipnorm") as caught:
        make("sgd", keras, clipnorm=1, global_clipnorm=1)
    assert caught.value.errors[0]["path"] == "/optimizer_config"


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 3), st.floats(-2, 2), st.floats(0, 1).map(str), st.just("nan"), st.text()
)


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(CLASSES)),
    fields=st.dictionaries(st.sampled_from([*EVERY_FIELD, "lr", "jit_compile", "etas"]), VALUES, max_size=6).filter(
        lambda fields: not {"lr", "learning_rate"} <= fields.keys()
    ),
)
def test_a_configuration_is_valid_json_again_or_refused(name, fields):
    model = plugin(name).locex_config_model()
    try:
        config = validate(model, fields)
    except InvalidConfiguration as error:
        refused = {fault["path"].split("/")[1] for fault in error.errors}
        config = validate(model, {field: value for field, value in fields.items() if field not in refused})
    assert config.learning_rate > 0
    assert validate(model, json.loads(config.model_dump_json(exclude_none=True))) == config


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(CLASSES)),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "lr": st.floats(1e-6, 10),
            "weight_decay": st.floats(0, 1),
            "clipvalue": st.floats(0.1, 2),
            "use_ema": st.booleans(),
            "ema_momentum": st.floats(0, 1),
            "epsilon": st.floats(0, 1),
            "rho": st.floats(0, 0.99),
            "momentum": st.floats(0, 1),
            "beta_1": st.floats(0, 0.99),
        },
    ),
)
def test_numbers_as_strings_are_the_numbers(name, fields):
    model = plugin(name).locex_config_model()
    known = {field: value for field, value in fields.items() if field in {*model.model_fields, "lr"}}
    assert validate(model, {field: str(value) for field, value in known.items()}) == validate(model, known)


def test_every_plugin_fits_the_hooks():
    for name in CLASSES:
        manager = pluggy.PluginManager("locex")
        manager.add_hookspecs(hookspecs)
        manager.register(plugin(name))
        manager.check_pending()
        assert all(field.description for field in manager.hook.locex_config_model().model_fields.values())
        assert manager.hook.locex_create_optimizer.get_hookimpls()


def test_optimizers_and_callbacks_import_no_framework():
    program = """
import sys
from importlib.metadata import entry_points
for group in ("optimizer", "scheduler"):
    for entry in entry_points(group=f"locex.{group}"):
        if entry.dist.name == "locex-keras-builder":
            entry.load()().locex_config_model()
print([name for name in ("tensorflow", "keras", "tf_keras", "numpy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
