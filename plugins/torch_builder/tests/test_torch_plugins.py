from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pluggy
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from locex import hookspecs
from locex.errors import InvalidConfiguration, InvalidModel


def test_every_plugin_fits_the_hooks(kit):
    found = {
        (kind, entry.name.removeprefix("pytorch."))
        for kind in ("architecture", "optimizer", "scheduler")
        for entry in entry_points(group=f"locex.{kind}")
        if entry.name.startswith("pytorch.") and entry.dist.name == "locex-torch-builder"
    }
    assert len(found) == 2 + 13 + 14
    for kind, name in sorted(found):
        manager = pluggy.PluginManager("locex")
        manager.add_hookspecs(hookspecs)
        manager.register(kit.plugin(kind, name))
        manager.check_pending()
        model = manager.hook.locex_config_model()
        assert all(field.description for field in model.model_fields.values())
        assert getattr(manager.hook, f"locex_create_{kind}").get_hookimpls()


README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EVERYWHERE = {"lr", "differentiable", "last_epoch", "verbose"}


@pytest.mark.parametrize(("kind", "heading"), [("optimizer", "## Optimizers"), ("scheduler", "## Schedulers")])
def test_the_readme_names_every_field(kind, heading, kit):
    table = README.split(heading)[1].split("\n## ")[0]
    rows = [line.split(" | ", 1) for line in table.splitlines() if line.startswith("| `")]
    told = {name: set(re.findall(r"`(\w+)`", cells)) for names, cells in rows for name in re.findall(r"`(\w+)`", names)}
    entries = {
        entry.name.removeprefix("pytorch.")
        for entry in entry_points(group=f"locex.{kind}")
        if entry.dist.name == "locex-torch-builder"
    }
    assert told.keys() == entries
    for name in entries:
        fields = {*kit.plugin(kind, name).locex_config_model().model_fields}
        assert fields - EVERYWHERE <= told[name], name


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


numbers = st.one_of(
    st.integers(-1, 12), st.integers(), st.floats(0, 1), st.sampled_from(["2", "0.5", "relu", "x", ""]), st.none()
)


@pytest.mark.parametrize("name", ["cnn", "mlp"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_architecture_is_made_or_refused(name, data, kit):
    fields = {"input_size": [8, 8], "num_classes": 3} if data.draw(st.booleans()) else {}
    keys = st.sampled_from([*kit.plugin("architecture", name).locex_config_model().model_fields, "unknown"])
    fields |= data.draw(st.dictionaries(keys, numbers | st.lists(numbers, max_size=3), max_size=3))
    try:
        model = kit.architecture(name, fields)
    except (InvalidConfiguration, InvalidModel) as error:
        assert error.message  # noqa: PT017 -- a model is as good an answer
        return
    assert fields.get("unknown") is None
    if sum(weight.numel() for weight in model.parameters()) < 10**6:
        outputs = model.eval()(torch.zeros(2, *model.signature.input.size))
        assert outputs.shape[1:] == model.signature.output.size


def test_two_classes_share_a_unit_only_if_asked_to(kit):
    assert kit.architecture("mlp", {"input_size": [4], "num_classes": 2})(torch.zeros(1, 4)).shape == (1, 2)
    fields = {"input_size": [4], "num_classes": 2, "outputs": 1}
    assert kit.architecture("mlp", fields)(torch.from_numpy(np.zeros((1, 4), np.float32))).shape == (1, 1)
