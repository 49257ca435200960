from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from locex.errors import InvalidConfiguration
from locex.schemas.base import schema_of, validate
from locex.schemas.job import TrainConfig
from locex_torch_builder import forward as module
from locex_torch_builder.builder import PytorchBuilder

CONFIG = TrainConfig(batch_size=16, epochs=2)
OPTIONS = ("gradient_clip_norm", "gradient_clip_value", "mixed_precision", "compile")


def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name in left)


def model_of(session, kit):
    model = kit.architecture("mlp", {"input_size": [8], "hidden": [16], "num_classes": 3})
    model.load_state_dict({name: torch.from_numpy(array) for name, array in session.get_parameters().items()})
    return model


def test_options_are_described(kit):
    model = PytorchBuilder().locex_config_model()
    properties = schema_of(model)["properties"]
    assert all(properties[name]["description"] for name in OPTIONS)
    config = validate(model, {"gradient_clip_norm": "1.5", "compile": "True", "mixed_precision": "bfloat16"})
    assert (config.gradient_clip_norm, config.compile, config.mixed_precision) == (1.5, True, "bfloat16")
    for wrong in ({"gradient_clip_norm": 0}, {"gradient_clip_value": -1}, {"mixed_precision": "int8"}):
        with pytest.raises(InvalidConfiguration, match=next(iter(wrong))):
            validate(model, wrong)
    with pytest.raises(InvalidConfiguration, match="exclude each other"):
        validate(model, {"gradient_clip_norm": 1, "gradient_clip_value": 1})


anything = st.one_of(
    st.integers(-1, 3),
    st.floats(),
    st.sampled_from(["1e-3", "True", "MSE", "Accuracy", "onnx", "float16", ""]),
    st.none(),
)
anything |= st.lists(anything, max_size=2)
anything |= st.dictionaries(st.sampled_from(["formats", "warmup_iters", "scheduler_conf", "x"]), anything, max_size=2)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_options_are_taken_or_refused(data):
    model = PytorchBuilder().locex_config_model()
    fields = data.draw(st.dictionaries(st.sampled_from([*model.model_fields, "unknown"]), anything, max_size=3))
    try:
        config = validate(model, fields)
    except InvalidConfiguration as error:
        assert error.errors  # noqa: PT017 -- a configuration is as good an answer
        return
    assert fields.get("unknown") is None
    assert validate(model, config.model_dump(mode="json", exclude_none=True)) == config


@pytest.mark.parametrize(
    ("option", "clip"),
    [
        ({"gradient_clip_norm": 0.05}, lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, 0.05)),
        ({"gradient_clip_value": 0.01}, lambda parameters: torch.nn.utils.clip_grad_value_(parameters, 0.01)),
    ],
)
@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_gradients_are_clipped_as_pytorch_does(option, clip, mu, mlp, make_session, kit):
    train = kit.blobs(examples=16)
    session = make_session(mlp, train=train, options=option, optimizer=kit.optimizer(lr=1.0))
    model = model_of(session, kit)
    start = [weight.detach().clone() for weight in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(4):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(train.x)), torch.from_numpy(train.y))
        for weight, anchor in zip(model.parameters(), start, strict=True):
            loss = loss + mu / 2 * (weight - anchor).square().sum()
        loss.backward()
        clip(model.parameters())
        optimizer.step()
    session.fit(TrainConfig(batch_size=16, epochs=4), server_round=1, proximal_mu=mu)
    for name, weight in model.state_dict().items():
        np.testing.assert_allclose(session.get_parameters()[name], weight.numpy(), atol=1e-5)


@pytest.mark.parametrize("option", ["gradient_clip_norm", "gradient_clip_value"])
@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.SparseAdam])
def test_clipping_is_refused_where_it_would_be_wrong(kind, option, mlp, make_session):
    with pytest.raises(InvalidConfiguration, match=kind.__name__) as caught:
        make_session(mlp, options={option: 1.0}, optimizer=kind)
    assert caught.value.errors[0]["path"] == f"/builder/{option}"
    assert option in caught.value.remedy


@pytest.mark.parametrize("kind", ["named", "torchscript", "lbfgs"])
def test_bfloat16_trains_full_weights(kind, tmp_path, mlp, make_session, kit):
    fields = {"optimizer": torch.optim.LBFGS} if kind == "lbfgs" else {}
    if kind == "torchscript":
        mlp = tmp_path / "scripted.pt"
        model = kit.architecture("mlp", {"input_size": [8], "hidden": [16], "num_classes": 3})
        with pytest.warns(DeprecationWarning, match="deprecated"):
            torch.jit.script(model).save(str(mlp))
    full = make_session(mlp, **fields)
    mixed = make_session(mlp, options={"mixed_precision": "bfloat16"}, **fields)
    config = TrainConfig(batch_size=90 if kind == "lbfgs" else 16, epochs=5)
    results = [session.fit(config, server_round=1) for session in (full, mixed)]
    assert results[0].metrics["loss"] == pytest.approx(results[1].metrics["loss"], rel=0.2, abs=0.02)
    assert results[0] != results[1]  # it does something
    assert all(array.dtype == np.float32 for array in mixed.get_parameters().values())
    assert mixed.evaluate(CONFIG).metrics["accuracy"] > 0.9


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test says it lacks")
def test_float16_without_a_gpu_is_full_precision_with_a_warning(mlp, make_session):
    warnings = []
    session = make_session(mlp, options={"mixed_precision": "float16"}, warn=warnings.append)
    plain = make_session(mlp)
    assert session.fit(CONFIG, server_round=1) == plain.fit(CONFIG, server_round=1)
    assert same(session.get_parameters(), plain.get_parameters())
    (warning,) = warnings
    assert "float16 was ignored: it needs a GPU" in warning


@pytest.fixture
def cold(monkeypatch, tmp_path):
    """Let the compiler find nothing that it compiled before."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler for C++")
def test_a_compiled_model_trains_the_same(tmp_path, bare, make_session, kit, cold):
    def network(*_):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 3)
        )

    data, warnings = kit.blobs(examples=96), []
    fields = {"train": data, "test": data, "config": CONFIG, "architecture": network}
    plain = make_session(bare, **fields)
    session = make_session(bare, options={"compile": True}, warn=warnings.append, **fields)
    assert isinstance(session._forward._run, torch._dynamo.OptimizedModule)
    assert same(plain.get_parameters(), session.get_parameters())  # the trial left no trace
    told = [each.fit(CONFIG, server_round=1).metrics["loss"] for each in (plain, session)]
    assert told[0] == pytest.approx(told[1], rel=1e-4)
    for name, array in plain.get_parameters().items():
        np.testing.assert_allclose(array, session.get_parameters()[name], atol=1e-4)
    assert plain.evaluate(CONFIG).loss == pytest.approx(session.evaluate(CONFIG).loss, rel=1e-4)
    assert warnings == []
    (artefact,) = session.export(tmp_path / "out", ["safetensors"])
    again = make_session(artefact, **fields)
    assert same(again.get_parameters(), session.get_parameters())


def test_without_a_compiler_the_model_runs_as_it_is(mlp, make_session, monkeypatch, cold):
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    warnings = []
    session = make_session(mlp, options={"compile": True}, warn=warnings.append, config=CONFIG)
    (warning,) = warnings
    assert "compile was ignored, the model runs as it is" in warning
    plain = make_session(mlp)
    assert session.fit(CONFIG, server_round=1) == plain.fit(CONFIG, server_round=1)
    assert same(session.get_parameters(), plain.get_parameters())


def test_a_compiler_that_fails_is_told(mlp, make_session, monkeypatch):
    def broken(model):
        def run(inputs):
            raise RuntimeError("no such operation\nwith a long story")

        return run

    monkeypatch.setattr(module.torch, "compile", broken)
    warnings = []
    session = make_session(mlp, options={"compile": "True"}, warn=warnings.append)
    assert warnings == [
        "compile was ignored, the model runs as it is: torch.compile says: no such operation",
    ]
    session.fit(CONFIG, server_round=1)


def test_programs_run_as_they_are(tmp_path, make_session, kit):
    model = kit.architecture("mlp", {"input_size": [8], "num_classes": 3})
    with pytest.warns(DeprecationWarning, match="deprecated"):
        torch.jit.script(model).save(str(tmp_path / "m.pt"))
    warnings = []
    make_session(tmp_path / "m.pt", options={"compile": True}, warn=warnings.append)
    assert "runs as it is" in warnings[0]
