from __future__ import annotations

import inspect
import logging
import subprocess
import sys

import numpy as np
import pluggy
import pytest
import torch
from jsonschema import Draft202012Validator

from locex import hookspecs
from locex.errors import InvalidConfiguration
from locex.schemas.base import schema_of, validate

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
SCHEDULERS = {"steplr": torch.optim.lr_scheduler.StepLR}


def arguments(kind):
    signature = inspect.signature(kind.__init__).parameters.values()
    return {p.name: p.default for p in signature if p.name not in {"self", "params", "optimizer"}}


def defaults(model):
    return {
        name: inspect.Parameter.empty if field.is_required() else field.default
        for name, field in model.model_fields.items()
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_what_torch_takes(name, kit):
    assert defaults(kit.plugin("optimizer", name).locex_config_model()) == arguments(OPTIMIZERS[name])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_takes_what_torch_takes(name, kit):
    fields = defaults(kit.plugin("scheduler", name).locex_config_model())
    assert fields.pop("verbose") is False
    assert fields == arguments(SCHEDULERS[name])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_field_reaches_the_optimizer(name, kit):
    weight = torch.nn.Parameter(torch.zeros(2))
    made = kit.optimizer(name, lr="0.25", weight_decay="0.5", maximize="True")([weight])
    assert type(made) is OPTIMIZERS[name]
    assert (made.defaults["lr"], made.defaults["weight_decay"], made.defaults["maximize"]) == (0.25, 0.5, True)


def test_strings_and_both_names_of_the_learning_rate(kit):
    model = kit.plugin("optimizer", "adam").locex_config_model()
    given = {"learning_rate": "0.005", "amsgrad": "True", "betas": ["0.8", "0.99"], "eps": None}
    config = validate(model, given)
    assert (config.lr, config.amsgrad, config.betas, config.eps) == (0.005, True, (0.8, 0.99), 1e-8)
    assert validate(model, {"lr": 0.1}).lr == 0.1
    published = Draft202012Validator(schema_of(model))
    assert not list(published.iter_errors({key: value for key, value in given.items() if value is not None}))


@pytest.mark.parametrize(
    "fields", [{"rho": 1}, {"lr": 0}, {"lr": "nan"}, {"betas": [0.9]}, {"betas": [0.9, 1.0]}, {"weight_decay": -1}]
)
def test_wrong_fields_are_refused(fields, kit):
    with pytest.raises(InvalidConfiguration, match=next(iter(fields))):
        kit.optimizer("adam", **fields)


def test_a_combination_that_torch_refuses_is_explained(kit):
    with pytest.raises(InvalidConfiguration, match="Nesterov") as caught:
        kit.optimizer("sgd", nesterov=True)([torch.nn.Parameter(torch.zeros(2))])
    assert caught.value.errors[0]["path"] == "/optimizer_config"


def test_verbose_is_told_in_the_log(kit, caplog):
    optimizer = kit.optimizer()([torch.nn.Parameter(torch.zeros(2))])
    with caplog.at_level(logging.INFO):
        kit.scheduler(step_size="2", verbose="True")(optimizer)
    assert "StepLR" in caplog.text


def test_a_scheduler_may_start_at_a_later_epoch(kit):
    optimizer = kit.optimizer(lr=1)([torch.nn.Parameter(torch.zeros(2))])
    assert kit.scheduler(step_size=2, last_epoch=3)(optimizer).last_epoch == 4


def test_every_plugin_fits_the_hooks(kit):
    for kind, name in (
        ("architecture", "cnn"),
        ("architecture", "mlp"),
        ("optimizer", "sgd"),
        ("optimizer", "adam"),
        ("scheduler", "steplr"),
    ):
        manager = pluggy.PluginManager("locex")
        manager.add_hookspecs(hookspecs)
        manager.register(kit.plugin(kind, name))
        manager.check_pending()
        model = manager.hook.locex_config_model()
        assert all(field.description for field in model.model_fields.values())
        assert getattr(manager.hook, f"locex_create_{kind}").get_hookimpls()


def test_entry_points_import_no_framework():
    program = """
import sys
from importlib.metadata import entry_points
for group in ("builder", "architecture", "optimizer", "scheduler"):
    for entry in entry_points(group=f"locex.{group}"):
        if entry.dist.name == "locex-torch-builder":
            entry.load()().locex_config_model()
print([name for name in ("torch", "torchmetrics", "numpy", "safetensors") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({"input_size": [28, 28], "num_classes": 10}, (28, 28)),
        ({"input_size": [1, 28, 28], "num_classes": 10, "batch_norm": True, "dropout": 0.5}, (1, 28, 28)),
        ({"input_size": [3, 17, 20], "num_classes": 10, "kernel_size": 4, "channels": [4, 5, 6]}, (3, 17, 20)),
        ({"input_size": [9, 9], "num_classes": 10, "pool": 1, "hidden": [], "channels": "4"}, (9, 9)),
    ],
)
def test_a_cnn_takes_images(fields, shape, kit):
    model = kit.architecture("cnn", fields).eval()
    assert model(torch.zeros(2, *shape)).shape == (2, 10)
    assert model.signature.input.size == shape
    assert model.signature.output.size == (10,)
    assert model.signature.input.dtype == "float32"


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "sigmoid"])
def test_an_mlp_takes_any_rank(activation, kit):
    fields = {"input_size": [2, 3, 4], "hidden": [5, 6], "outputs": 2, "activation": activation, "dropout": 0.1}
    model = kit.architecture("mlp", fields).eval()
    assert model(torch.zeros(7, 2, 3, 4)).shape == (7, 2)
    assert [tuple(weight.shape) for weight in model.parameters()][::2] == [(5, 24), (6, 5), (2, 6)]


def test_weights_come_from_the_seed_alone(kit):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = (kit.architecture("mlp", {"input_size": [4], "outputs": 1}, seed) for seed in (2, 2, 3))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.output.weight, same.output.weight)
    assert not torch.equal(one.output.weight, other.output.weight)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("mlp", {"input_size": [4]}, "num_classes or outputs"),
        ("mlp", {"input_size": [4], "num_classes": 3, "outputs": 1}, "outputs must equal"),
        ("cnn", {"input_size": [4, 4], "num_classes": 3, "channels": [1, 2, 3]}, "leave nothing"),
        ("cnn", {"input_size": [4], "num_classes": 3}, "input_size"),
    ],
)
def test_impossible_architectures_are_refused(name, fields, message, kit):
    with pytest.raises(InvalidConfiguration, match=message):
        kit.architecture(name, fields)


def test_two_classes_share_a_unit_only_if_asked_to(kit):
    assert kit.architecture("mlp", {"input_size": [4], "num_classes": 2})(torch.zeros(1, 4)).shape == (1, 2)
    fields = {"input_size": [4], "num_classes": 2, "outputs": 1}
    assert kit.architecture("mlp", fields)(torch.from_numpy(np.zeros((1, 4), np.float32))).shape == (1, 1)
