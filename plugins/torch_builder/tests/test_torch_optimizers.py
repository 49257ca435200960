from __future__ import annotations

import functools
import inspect
import json
import types
from importlib.metadata import entry_points
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from locex.errors import InvalidConfiguration
from locex.schemas.base import schema_of, validate

NAMES = "Adadelta Adagrad Adam AdamW SparseAdam Adamax ASGD LBFGS NAdam RAdam RMSprop Rprop SGD"
CLASSES = {name.lower(): getattr(torch.optim, name) for name in NAMES.split()}
COMPLETE = {
    "lr": "0.25",
    "rho": "0.8",
    "eps": "1e-7",
    "foreach": "False",
    "maximize": "True",
    "lr_decay": "0.01",
    "betas": ["0.8", "0.95"],
    "etas": ["0.4", "1.3"],
    "step_sizes": ["1e-5", "10"],
    "lambd": "0.001",
    "alpha": "0.7",
    "t0": "100",
    "max_iter": "5",
    "max_eval": "7",
    "tolerance_grad": "1e-6",
    "tolerance_change": "1e-8",
    "history_size": "10",
    "line_search_fn": "strong_wolfe",
    "momentum_decay": "0.005",
    "dampening": "0.1",
    "centered": "True",
    "nesterov": "False",
    "momentum": "0.9",
    "weight_decay": "0.02",
    "amsgrad": "True",
    "initial_accumulator_value": "0.3",
}
"""PyTorch's part of the public description's optimizer_config, as strings."""


def value_of(text):
    if isinstance(text, list):
        return tuple(float(part) for part in text)
    return text if text == "strong_wolfe" else json.loads(text.lower())


def signature(kind):
    """Defaults and types of a constructor; tensors, which no JSON holds, left out."""
    hints = get_type_hints(kind.__init__)
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {
        p.name: (p.default, plain(hints[p.name])) for p in parameters if p.name not in {"self", "params", "optimizer"}
    }


def plain(hint):
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return plain(parts[0])
    if origin is Literal:
        return str
    if origin in {Union, types.UnionType}:
        kept = [plain(part) for part in parts if part is not torch.Tensor]
        return kept[0] if len(kept) == 1 else frozenset(kept)
    if origin is tuple:
        return (tuple, *map(plain, parts))
    return hint


def fields(model):
    return {name: (field.get_default(), plain(field.annotation)) for name, field in model.model_fields.items()}


def model_of(kit, name):
    return kit.plugin("optimizer", name).locex_config_model()


@pytest.mark.parametrize("name", CLASSES)
def test_an_optimizer_takes_what_torch_takes(name, kit):
    assert fields(model_of(kit, name)) == signature(CLASSES[name])


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_of_the_description_reaches_the_optimizer_that_has_it(name, kit):
    has = {key: value for key, value in COMPLETE.items() if key in signature(CLASSES[name])}
    made = kit.optimizer(name, **has)([torch.nn.Parameter(torch.zeros(2))])
    assert type(made) is CLASSES[name]
    assert {key: made.defaults[key] for key in has} == {key: value_of(COMPLETE[key]) for key in has}


@pytest.mark.parametrize("name", CLASSES)
def test_defaults_are_torch_s(name, kit):
    weight = torch.nn.Parameter(torch.zeros(2))
    assert kit.optimizer(name)([weight]).defaults == CLASSES[name]([weight]).defaults


def test_strings_and_both_names_of_the_learning_rate(kit):
    model = model_of(kit, "adam")
    given_fields = {"learning_rate": "0.005", "amsgrad": "True", "betas": ["0.8", "0.99"], "eps": None}
    config = validate(model, given_fields)
    assert (config.lr, config.amsgrad, config.betas, config.eps) == (0.005, True, (0.8, 0.99), 1e-8)
    assert validate(model, {"lr": 0.1}).lr == 0.1
    published = Draft202012Validator(schema_of(model))
    assert not list(published.iter_errors({k: v for k, v in given_fields.items() if v is not None}))


def test_two_learning_rates_are_refused(kit):
    with pytest.raises(InvalidConfiguration, match="lr and learning_rate are the same field"):
        validate(model_of(kit, "sgd"), {"lr": 0.1, "learning_rate": 0.2})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("adam", {"rho": 1}),
        ("adam", {"lr": 0}),
        ("adam", {"lr": "nan"}),
        ("adam", {"betas": [0.9]}),
        ("adam", {"betas": [0.9, 1.0]}),
        ("adam", {"weight_decay": -1}),
        ("adam", {"differentiable": True}),
        ("rprop", {"etas": [1.2, 0.5]}),
        ("rprop", {"weight_decay": 0.1}),
        ("lbfgs", {"line_search_fn": "armijo"}),
        ("lbfgs", {"history_size": 10**9}),
        ("sparseadam", {"weight_decay": 0.1}),
        ("adadelta", {"rho": 1.1}),
    ],
)
def test_wrong_fields_are_refused(name, wrong, kit):
    (field,) = wrong
    with pytest.raises(InvalidConfiguration) as caught:
        kit.optimizer(name, **wrong)
    assert caught.value.errors[0]["path"].split("/")[1] == field


def test_an_unknown_key_lists_the_allowed(kit):
    with pytest.raises(InvalidConfiguration, match=r"allowed here are: .*momentum_decay"):
        kit.optimizer("nadam", momentum=0.9)


@pytest.mark.parametrize(
    ("name", "combination", "reason"),
    [
        ("sgd", {"nesterov": True}, "Nesterov"),
        ("adam", {"fused": True, "foreach": True}, "cannot be `True` together"),
    ],
)
def test_a_combination_that_torch_refuses_is_explained(name, combination, reason, kit):
    with pytest.raises(InvalidConfiguration, match=reason) as caught:
        kit.optimizer(name, **combination)([torch.nn.Parameter(torch.zeros(2))])
    assert caught.value.errors[0]["path"] == "/optimizer_config"


def test_capturable_needs_a_gpu(kit):
    with pytest.raises(InvalidConfiguration, match="on a GPU") as caught:
        kit.optimizer("adam", capturable=True)([torch.nn.Parameter(torch.zeros(2))])
    assert caught.value.errors[0]["path"] == "/optimizer_config/capturable"


def stepped(optimizer, model, inputs):
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_sparseadam_trains_sparse_embeddings_and_refuses_dense_gradients(kit):
    words = torch.tensor([[1, 2], [3, 4]])
    torch.manual_seed(0)
    embedding = torch.nn.EmbeddingBag(9, 3, sparse=True)
    before = embedding.weight.detach().clone()
    stepped(kit.optimizer("sparseadam", lr=0.1)(list(embedding.parameters())), embedding, words)
    changed = (embedding.weight != before).any(1).tolist()
    assert changed == [row in {1, 2, 3, 4} for row in range(9)]
    dense = torch.nn.Linear(2, 1)
    with pytest.raises(InvalidConfiguration, match="SparseAdam takes sparse gradients only") as caught:
        stepped(kit.optimizer("sparseadam")(list(dense.parameters())), dense, torch.ones(1, 2))
    assert caught.value.errors[0]["path"] == "/optimizer_config/optimizer"
    assert "adam" in caught.value.remedy


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("name", [name for name in CLASSES if name != "sparseadam"])
def test_sparse_gradients_train_or_are_refused_with_the_remedy(name, kit):
    words = torch.tensor([[1, 2], [3, 4]])
    embedding = torch.nn.EmbeddingBag(9, 3, sparse=True)
    before = embedding.weight.detach().clone()
    optimizer = kit.optimizer(name, lr=0.1)(list(embedding.parameters()))
    if name in {"sgd", "adagrad"}:
        stepped(optimizer, embedding, words)
        assert not torch.equal(before, embedding.weight)
    elif name == "lbfgs":

        def closure():
            optimizer.zero_grad()
            loss = embedding(words).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        assert not torch.equal(before, embedding.weight)
    else:
        with pytest.raises(InvalidConfiguration, match="dense gradients only") as caught:
            stepped(optimizer, embedding, words)
        assert "sparseadam" in caught.value.remedy


def test_lbfgs_takes_weights_that_lie_channels_last(kit):
    model = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    images = torch.ones(2, 3, 8, 8).to(memory_format=torch.channels_last)
    optimizer = kit.optimizer("lbfgs", max_iter=3)(model.parameters())

    def closure():
        optimizer.zero_grad()
        loss = (model(images) - 1).square().mean()
        loss.backward()
        return loss

    first = optimizer.step(closure).detach()
    assert closure().detach() < first


numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.floats(0, 1),
    st.sampled_from(["0.5", "1", "-1", "1e-3", "nan", "inf", "x", "", "True", "strong_wolfe"]),
    st.booleans(),
    st.none(),
)
anything = numbers | st.lists(numbers, max_size=3) | st.dictionaries(st.text(max_size=3), numbers, max_size=2)


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_configuration_is_taken_or_refused(name, data):
    plugin = loaded(name)
    keys = st.sampled_from([*plugin.locex_config_model().model_fields, "learning_rate", "unknown"])
    fields = data.draw(st.dictionaries(keys, anything, max_size=4))
    made = []

    def make():
        made.append(validate(plugin.locex_config_model(), fields))
        made.append(plugin.locex_create_optimizer(made[0], [torch.nn.Parameter(torch.zeros(2))]))

    if (error := refusal(make)) is not None:
        assert error.errors
        return
    config, optimizer = made
    assert type(optimizer) is CLASSES[name]
    assert fields.get("unknown") is None
    assert validate(plugin.locex_config_model(), config.model_dump(mode="json", exclude_none=True)) == config


@functools.cache
def loaded(name):
    (entry,) = entry_points(group="locex.optimizer", name=f"pytorch.{name}")
    return entry.load()()


def refusal(call):
    """The only exception that may be raised."""
    try:
        call()
    except InvalidConfiguration as error:
        return error
    return None
