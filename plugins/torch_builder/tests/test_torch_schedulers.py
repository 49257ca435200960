from __future__ import annotations

import functools
import inspect
import json
import logging
import math
import types
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from torch.optim import lr_scheduler

from locex.errors import InvalidConfiguration
from locex.schemas.base import schema_of, validate
from locex_torch_builder.schedule import Schedule

NAMES = (
    "LambdaLR MultiplicativeLR StepLR MultiStepLR ConstantLR LinearLR ExponentialLR CosineAnnealingLR "
    "ChainedScheduler SequentialLR ReduceLROnPlateau CyclicLR OneCycleLR CosineAnnealingWarmRestarts"
)
CLASSES = {name.lower(): getattr(lr_scheduler, name) for name in NAMES.split()}
NEEDED = {
    "steplr": {"step_size": "2"},
    "multisteplr": {"milestones": ["1", "3"]},
    "exponentiallr": {"gamma": "0.9"},
    "cosineannealinglr": {"t_max": "4"},
    "cosineannealingwarmrestarts": {"t_0": "3", "t_mult": "2"},
    "cycliclr": {"base_lr": "0.01", "max_lr": "0.1", "step_size_up": "2"},
    "onecyclelr": {"max_lr": "0.1", "total_steps": "10"},
    "chainedscheduler": {"schedulers": [{"scheduler": "steplr", "step_size": "2"}, {"scheduler": "constantlr"}]},
    "sequentiallr": {
        "schedulers": [{"scheduler": "constantlr"}, {"scheduler": "exponentiallr", "gamma": "0.5"}],
        "milestones": "2",
    },
}
"""What has no default, as strings, with the second names."""


@functools.cache
def plugin(name):
    (entry,) = entry_points(group="locex.scheduler", name=f"pytorch.{name}")
    return entry.load()()


def sgd(rate=1.0, **fields):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=rate, **fields)


def made(name, optimizer=None, **fields):
    chosen = plugin(name)
    config = validate(chosen.locex_config_model(), fields)
    return chosen.locex_create_scheduler(config, sgd(momentum=0.9) if optimizer is None else optimizer)


def rates(scheduler, steps=6):
    seen = []
    for _ in range(steps):
        seen.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


# --- fields -----------------------------------------------------------------------------------------------------------

HINTS = {"Callable": Callable, "Iterable": Iterable, "Sequence": list, "Optimizer": torch.optim.Optimizer}


def plain(hint):
    """A type as JSON has it: functions are text, several of something are a list of it."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return plain(parts[0])
    if origin in {Literal, Callable}:
        return str
    if origin in {list, Iterable}:
        return list[plain(parts[0])]
    if origin is Union or (hasattr(hint, "__or__") and parts and origin is not list):
        kept = {plain(part) for part in parts}
        kept = {part for part in kept if list[part] not in kept}
        return kept.pop() if len(kept) == 1 else frozenset(kept)
    return hint


def signature(kind):
    hints = get_type_hints(kind.__init__, localns=HINTS)
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {p.name: (p.default, plain(hints[p.name])) for p in parameters if p.name not in {"self", "optimizer"}}


def fields(model):
    found = {}
    for name, field in model.model_fields.items():
        default = inspect.Parameter.empty if field.is_required() else field.default
        found[name] = (default, plain(field.annotation))
    return found


@pytest.mark.parametrize("name", CLASSES)
def test_a_scheduler_takes_what_torch_takes(name):
    found, expected = fields(plugin(name).locex_config_model()), signature(CLASSES[name])
    assert found.pop("verbose") == (False, bool)
    if name == "reducelronplateau":
        assert found.pop("monitor") == ("val_loss", str)
    if name in {"lambdalr", "multiplicativelr"}:  # a default of our own: factor 1
        assert found.pop("lr_lambda") == (["1"], expected.pop("lr_lambda")[1])
    if name in {"chainedscheduler", "sequentiallr"}:  # configurations instead of schedulers
        assert found.pop("schedulers")[0] == expected.pop("schedulers")[0] == inspect.Parameter.empty
    alone = {
        key: (default[0] if isinstance(default, list) else default, kind) for key, (default, kind) in found.items()
    }
    assert alone == expected


@pytest.mark.parametrize("name", CLASSES)
def test_strings_make_a_scheduler_of_torch(name):
    given_fields = NEEDED.get(name, {})
    assert isinstance(made(name, **given_fields), CLASSES[name])
    published = Draft202012Validator(schema_of(plugin(name).locex_config_model()))
    listed = {"milestones": ["2"]} if "milestones" in given_fields else {}
    assert not list(published.iter_errors(given_fields | listed))


@pytest.mark.parametrize("name", CLASSES)
def test_an_accepted_configuration_is_accepted_again(name):
    model = plugin(name).locex_config_model()
    config = validate(model, NEEDED.get(name, {}))
    assert validate(model, config.model_dump(mode="json", exclude_none=True)) == config


def test_fields_reach_the_scheduler():
    assert rates(made("steplr", step_size="2", gamma="0.5")) == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert rates(made("multisteplr", milestones=["2", 4], gamma="0.5")) == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert rates(made("constantlr", factor="0.25", total_iters="2"), 3) == [0.25, 0.25, 1]
    assert rates(made("linearlr", start_factor="0.5", end_factor="1", total_iters=2), 3) == [0.5, 0.75, 1]
    cosine = made("cosineannealinglr", T_max="2", eta_min="0.2")
    assert rates(cosine, 3) == pytest.approx([1, 0.6, 0.2])
    restarts = made("cosineannealingwarmrestarts", T_0="2", T_mult=2, eta_min="0.2")
    assert rates(restarts, 5) == pytest.approx([1, 0.6, 1, 0.2 + 0.4 * (1 + math.cos(math.pi / 4)), 0.6])
    one = made("onecyclelr", max_lr=1, epochs="2", steps_per_epoch="5", div_factor=10, anneal_strategy="linear")
    assert one.total_steps == 10
    assert rates(one, 3)[0] == pytest.approx(0.1)
    plateau = made(
        "reducelronplateau", min_lr="0.3", factor="0.5", patience="0", cooldown="1", mode="max", monitor="f1"
    )
    assert (plateau.min_lrs, plateau.factor, plateau.patience, plateau.mode) == ([0.3], 0.5, 0, "max")
    assert plateau.monitor == "f1"


def test_a_scale_function_of_a_cycle():
    fields = {"base_lr": 0, "max_lr": 1, "step_size_up": 1, "scale_fn": "1 / x", "cycle_momentum": False}
    assert rates(made("cycliclr", sgd(), **fields)) == pytest.approx([0, 1, 0, 1 / 2, 0, 1 / 3])


def test_one_cycle_keeps_its_last_rate():
    scheduler = made("onecyclelr", max_lr=1, total_steps=4)
    seen = rates(scheduler, 9)
    assert seen[5:] == [seen[4]] * 4
    theirs = CLASSES["onecyclelr"](sgd(momentum=0.9), max_lr=1, total_steps=4)
    assert seen[:5] == rates(theirs, 4) + theirs.get_last_lr()


@pytest.mark.parametrize("name", sorted({*CLASSES} - {"chainedscheduler", "reducelronplateau"}))
def test_a_scheduler_may_start_at_a_later_epoch(name):
    assert made(name, **NEEDED.get(name, {}), last_epoch="3").last_epoch == 4


def test_verbose_is_told_in_the_log(caplog):
    with caplog.at_level(logging.INFO):
        made("steplr", step_size="2", verbose="True")
    assert "StepLR" in caplog.text


@pytest.mark.parametrize(
    ("name", "wrong", "path"),
    [
        ("steplr", {"step_size": 0}, "/step_size"),
        ("steplr", {"step_size": 1, "t_max": 3}, "/t_max"),
        ("steplr", {}, "/step_size"),
        ("constantlr", {"factor": 1.5}, "/factor"),
        ("reducelronplateau", {"factor": 1}, "/factor"),
        ("reducelronplateau", {"last_epoch": 1}, "/last_epoch"),
        ("reducelronplateau", {"min_delta": 0.1}, "/min_delta"),
        ("cycliclr", {"base_lr": 0.1, "max_lr": 1, "scale_fn": "epoch"}, "/scale_fn"),
        ("onecyclelr", {"max_lr": 1}, ""),
        ("onecyclelr", {"max_lr": 1, "epochs": 3}, ""),
        ("onecyclelr", {"max_lr": 1, "total_steps": 3, "last_epoch": 3}, ""),
        ("lambdalr", {"lr_lambda": ["epoch", "open(0)"]}, "/lr_lambda/1"),
        ("chainedscheduler", {"schedulers": []}, "/schedulers"),
        ("chainedscheduler", {"schedulers": [{"step_size": 3}]}, "/schedulers/0/scheduler"),
        ("chainedscheduler", {"schedulers": [{"scheduler": "reducelronplateau"}]}, "/schedulers/0/scheduler"),
        (
            "chainedscheduler",
            {"schedulers": [{"scheduler": "constantlr"}, {"scheduler": "steplr", "step_size": "x"}]},
            "/schedulers/1/step_size",
        ),
        (
            "chainedscheduler",
            {
                "schedulers": [
                    {
                        "scheduler": "sequentiallr",
                        "schedulers": [
                            {"scheduler": "constantlr"},
                            {"scheduler": "steplr", "speed": 1, "step_size": 1},
                        ],
                        "milestones": 3,
                    }
                ]
            },
            "/schedulers/0/schedulers/1/speed",
        ),
        ("sequentiallr", {"schedulers": [{"scheduler": "sequentiallr"}], "milestones": []}, "/schedulers/0/scheduler"),
        ("sequentiallr", {"schedulers": [{"scheduler": "constantlr"}] * 2, "milestones": [1, 2]}, ""),
        ("sequentiallr", {"schedulers": [{"scheduler": "constantlr"}] * 3, "milestones": [2, 1]}, ""),
        (
            "sequentiallr",
            {
                "schedulers": [
                    {"scheduler": "constantlr"},
                    {"scheduler": "onecyclelr", "max_lr": 1, "total_steps": 3},
                ],
                "milestones": [1],
            },
            "",
        ),
    ],
)
def test_wrong_fields_are_refused_where_they_stand(name, wrong, path):
    with pytest.raises(InvalidConfiguration) as caught:
        made(name, **wrong)
    assert [error["path"] for error in caught.value.errors] == [path]


def test_a_field_by_both_of_its_names_is_refused():
    with pytest.raises(InvalidConfiguration, match="T_max and t_max are the same field") as caught:
        made("cosineannealinglr", T_max=1, t_max=2)
    assert [error["path"] for error in caught.value.errors] == ["/T_max", "/t_max"]


def test_unknown_names_and_keys_within_list_the_known():
    with pytest.raises(InvalidConfiguration, match="'mine' can stand here; those of locex-torch-builder are: lambdalr"):
        made("sequentiallr", schedulers=[{"scheduler": "mine"}], milestones=[])
    with pytest.raises(InvalidConfiguration, match="allowed here are: gamma, last_epoch, step_size, verbose"):
        made("sequentiallr", schedulers=[{"scheduler": "steplr", "step_size": 1, "speed": 1}], milestones=[])


@pytest.mark.parametrize(
    ("name", "combination", "path"),
    [
        ("lambdalr", {"lr_lambda": "1 / epoch"}, "/scheduler_config"),
        ("lambdalr", {"lr_lambda": ["1", "2"]}, "/scheduler_config"),
        ("cycliclr", {"base_lr": [0.1, 0.2], "max_lr": 1}, "/scheduler_config"),
        ("cycliclr", {"base_lr": 0.1, "max_lr": 1}, "/scheduler_config"),
        (
            "chainedscheduler",
            {"schedulers": [{"scheduler": "onecyclelr", "max_lr": 1, "total_steps": 9}]},
            "/scheduler_config/schedulers/0",
        ),
    ],
)
def test_what_torch_refuses_is_explained(name, combination, path):
    with pytest.raises(InvalidConfiguration, match="PyTorch refuses") as caught:
        made(name, torch.optim.Rprop([torch.nn.Parameter(torch.zeros(2))]), **combination)
    assert caught.value.errors[0]["path"] == path


# --- nested -----------------------------------------------------------------------------------------------------------


def test_a_chain_is_torch_s():
    optimizer = sgd()
    theirs = lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer, 0.5, 2), lr_scheduler.ExponentialLR(optimizer, 0.9)], optimizer
    )
    ours = made(
        "chainedscheduler",
        sgd(),
        schedulers=[
            {"scheduler": "constantlr", "factor": 0.5, "total_iters": 2},
            {"scheduler": "exponentiallr", "gamma": 0.9},
        ],
    )
    assert rates(ours) == rates(theirs)


def test_a_sequence_within_a_chain_is_torch_s():
    optimizer = sgd()
    sequence = lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer), lr_scheduler.MultiStepLR(optimizer, [2])], [3]
    )
    theirs = lr_scheduler.ChainedScheduler([sequence, lr_scheduler.LambdaLR(optimizer, lambda n: 0.5**n)], optimizer)
    ours = made(
        "chainedscheduler",
        sgd(),
        schedulers=[
            {
                "scheduler": "sequentiallr",
                "schedulers": [{"scheduler": "linearlr"}, {"scheduler": "multisteplr", "milestones": [2]}],
                "milestones": [3],
            },
            {"scheduler": "lambdalr", "lr_lambda": "0.5 ** epoch"},
        ],
    )
    assert rates(ours) == rates(theirs)


# --- all of them ------------------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.integers(-2, 5),
    st.integers(),
    st.floats(),
    st.floats(0, 1),
    st.sampled_from(["0.5", "1", "-1", "1e-3", "inf", "x", "min", "rel", "cos", "0.9 ** epoch", "1 / x"]),
    st.booleans(),
    st.none(),
)
anything = numbers | st.lists(numbers, max_size=3) | st.dictionaries(st.text(max_size=3), numbers, max_size=2)
parts = st.fixed_dictionaries(
    {"scheduler": st.sampled_from([*CLASSES, "unknown"])},
    optional={"step_size": numbers, "gamma": numbers, "max_lr": numbers, "total_steps": numbers, "lr_lambda": anything},
)


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_configuration_is_taken_or_refused(name, data):
    model = plugin(name).locex_config_model()
    fields = dict(NEEDED.get(name, {})) if data.draw(st.booleans()) else {}
    for key in data.draw(st.lists(st.sampled_from([*model.model_fields, "t_max", "unknown"]), max_size=3)):
        fields[key] = data.draw(st.lists(parts, max_size=3) if key == "schedulers" else anything)
    try:
        scheduler = made(name, **fields)
        train(scheduler)
    except InvalidConfiguration:
        return
    assert isinstance(scheduler, CLASSES[name])
    assert fields.get("unknown") is None


def train(scheduler):
    """Some epochs of two steps, with a metric that stands still."""
    optimizer = scheduler.optimizer
    context = types.SimpleNamespace(
        config=types.SimpleNamespace(learning_rate=None), scheduler=lambda _: scheduler, warmup=None
    )
    schedule = Schedule(optimizer, context)
    for _ in range(6):
        for _ in range(2):
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(warming=False, metrics={str(schedule.monitor): 1.0})
    json.dumps(schedule.state())
