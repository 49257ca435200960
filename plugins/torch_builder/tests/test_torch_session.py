from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from locex.api import Dataset, Stopped
from locex.errors import DataUnavailable, FormatMismatch, InvalidConfiguration, InvalidModel, LocexError
from locex.schemas.job import TrainConfig, WarmupConfig
from locex_torch_builder.artefact import write_architecture
from locex_torch_builder.batches import BatchPlan

CONFIG = TrainConfig(batch_size=16, epochs=2)


def same(left, right):
    assert list(left) == list(right)
    return all(np.array_equal(left[name], right[name]) for name in left)


def write(path, architecture="mlp", **config):
    write_architecture(path, architecture=architecture, config={"input_size": [8]} | config)
    return path


def encoded(data, classes):
    return Dataset(data.x, np.eye(classes)[data.y])


def test_training_learns(mlp, make_session):
    session = make_session(mlp)
    before = session.evaluate(CONFIG)
    first = session.fit(CONFIG, server_round=1)
    last = session.fit(TrainConfig(batch_size=16, epochs=5), server_round=2)
    after = session.evaluate(CONFIG)
    assert first.examples == 90
    assert last.metrics["loss"] < first.metrics["loss"]
    assert after.loss < before.loss
    assert after.metrics["accuracy"] > 0.95
    assert after.examples == 40


def test_evaluation_tells_the_mean_over_examples(mlp, make_session, kit):
    test = kit.blobs(examples=37, seed=3)
    session = make_session(mlp, test=test)
    weights = {name: torch.from_numpy(array) for name, array in session.get_parameters().items()}
    model = kit.architecture("mlp", {"input_size": [8], "hidden": [16], "num_classes": 3})
    model.load_state_dict(weights)
    outputs, targets = model(torch.from_numpy(test.x)).detach(), torch.from_numpy(test.y)
    told = session.evaluate(CONFIG)
    assert told.loss == pytest.approx(float(torch.nn.functional.cross_entropy(outputs, targets)), rel=1e-5)
    assert told.metrics["accuracy"] == pytest.approx(float((outputs.argmax(1) == targets).float().mean()))


@pytest.mark.parametrize(
    "loss",
    [None, "categorical_crossentropy", "sparse_categorical_crossentropy", "cross_entropy", "crossentropy"],
)
def test_an_index_and_a_one_hot_row_train_alike(loss, mlp, make_session, kit):
    index, rows = kit.blobs(), encoded(kit.blobs(), 3)
    column = Dataset(index.x, index.y[:, None].astype(np.float64))
    results = []
    for train in (index, rows, column):
        session = make_session(mlp, loss=loss, train=train)
        session.fit(CONFIG, server_round=1)
        results.append(session.get_parameters())
    assert same(results[0], results[1])
    assert same(results[0], results[2])


def test_class_probabilities_are_targets_too(mlp, make_session, kit):
    rows = encoded(kit.blobs(), 3)
    session = make_session(mlp, train=Dataset(rows.x, 0.7 * rows.y + 0.1))
    assert session.fit(CONFIG, server_round=1).metrics["accuracy"] > 0.5


@pytest.mark.parametrize("loss", ["binary_crossentropy", "bce"])
def test_two_classes_train_one_unit(loss, tmp_path, make_session, kit):
    path = write(tmp_path / "m.zip", num_classes=2, outputs=1)
    index = kit.blobs(classes=2)
    targets = (index.y, index.y[:, None], np.eye(2)[index.y])
    results = []
    for y in targets:
        session = make_session(path, loss=loss, train=Dataset(index.x, y), test=Dataset(index.x, y))
        session.fit(TrainConfig(batch_size=16, epochs=4), server_round=1)
        results.append(session.get_parameters())
        assert session.evaluate(CONFIG).metrics["accuracy"] > 0.95
    assert same(results[0], results[1])
    assert same(results[0], results[2])


@pytest.mark.parametrize("loss", ["mse", "mean_squared_error"])
def test_regression(loss, tmp_path, make_session, kit):
    path = write(tmp_path / "m.zip", outputs=1)
    x = kit.blobs().x
    train = Dataset(x, x.sum(1).astype(np.float64))
    session = make_session(
        path, loss=loss, metrics=("loss",), train=train, test=train, optimizer=kit.optimizer(lr=0.01)
    )
    before = session.evaluate(CONFIG).loss
    assert set(session.fit(CONFIG, server_round=1).metrics) == {"loss"}
    assert session.evaluate(CONFIG).loss < before / 2


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"loss": "hinge"}, "/eval_func", "'categorical_crossentropy', 'sparse_categorical_crossentropy'"),
        ({"metrics": ("f1",)}, "/eval_metrics/0", "'accuracy' or 'loss'"),
        ({"loss": "mse"}, "/eval_metrics", "accuracy needs"),
    ],
)
def test_unknown_names_are_refused_with_the_known(fields, path, message, mlp, make_session):
    with pytest.raises(InvalidConfiguration, match=message) as caught:
        make_session(mlp, **fields)
    assert caught.value.errors[0]["path"] == path


def test_cross_entropy_needs_a_unit_for_each_class(tmp_path, make_session):
    with pytest.raises(InvalidConfiguration, match="one unit") as caught:
        make_session(write(tmp_path / "m.zip", outputs=1))
    assert caught.value.errors[0]["path"] == "/eval_func"


@pytest.mark.parametrize(
    ("x", "y", "fields"),
    [
        ((9,), np.zeros(6, int), {}),
        ((8,), np.full(6, 3), {}),
        ((8,), np.full(6, 0.5), {}),
        ((8,), np.zeros((6, 4)), {}),
        ((8,), np.zeros(5, int), {}),
        ((8,), np.zeros(6), {"loss": "mse", "metrics": ()}),
        ((8,), np.full((6, 3), 2.0), {"loss": "bce"}),
    ],
)
def test_data_that_does_not_fit_is_refused(x, y, fields, mlp, make_session):
    with pytest.raises(FormatMismatch) as caught:
        make_session(mlp, train=Dataset(np.zeros((6, *x)), y), **fields)
    assert caught.value.remedy


def test_without_data_nothing_is_trained(mlp, make_session):
    empty = Dataset(np.zeros((0, 8)), np.zeros(0, int))
    session = make_session(mlp, train=empty, test=empty)
    with pytest.raises(DataUnavailable):
        session.fit(CONFIG, server_round=1)
    with pytest.raises(DataUnavailable):
        session.evaluate(CONFIG)


def test_the_steps_of_epochs_go_on_through_the_data():
    config = TrainConfig(batch_size=10, steps_per_epoch=3)
    plan = BatchPlan(45, config, seed=1, server_round=2)
    taken = [index.tolist() for epoch in range(4) for index in plan.epoch(epoch)]
    assert [len(batch) for batch in taken] == [10, 10, 10, 10, 5, 10, 10, 10, 10, 5, 10, 10]
    assert sorted(chain(*taken[:5])) == sorted(chain(*taken[5:10])) == list(range(45))
    assert taken[:5] != taken[5:10]
    assert BatchPlan(45, TrainConfig(batch_size=10, steps_per_epoch=9), seed=1, server_round=2).steps == 5


def test_steps_bound_the_examples_seen(mlp, make_session):
    session = make_session(mlp)
    assert session.fit(TrainConfig(batch_size=16, steps_per_epoch="2"), server_round=1).examples == 32
    assert session.fit(TrainConfig(batch_size=16, steps_per_epoch="50"), server_round=1).examples == 90


def test_the_order_depends_on_seed_and_round(mlp, make_session):
    def trained(seed, server_round):
        session = make_session(mlp, seed=seed)
        session.fit(CONFIG, server_round=server_round)
        return session.get_parameters()

    reference = trained(1, 1)
    assert same(reference, trained(1, 1))
    assert not same(reference, trained(1, 2))
    assert not same(reference, trained(2, 1))


def test_parameters_are_copies_and_counters_come_back_as_floats(tmp_path, make_session, kit):
    write_architecture(
        tmp_path / "m.zip", architecture="cnn", config={"input_size": [8, 8], "num_classes": 3, "batch_norm": True}
    )
    data = kit.blobs(size=(8, 8))
    session = make_session(tmp_path / "m.zip", train=data, test=data)
    session.fit(CONFIG, server_round=1)
    mine = session.get_parameters()
    assert mine["norm1.num_batches_tracked"] == 12
    assert all(array.flags.c_contiguous and array.flags.writeable for array in mine.values())
    arrived = {name: array.astype(np.float32) for name, array in mine.items()}
    arrived["norm1.num_batches_tracked"] -= np.float32(1e-6)
    for array in arrived.values():
        array.setflags(write=False)
    other = make_session(tmp_path / "m.zip", train=data, test=data)
    other.set_parameters(arrived)
    assert same(mine, other.get_parameters())
    assert other.get_parameters()["norm1.num_batches_tracked"].dtype == np.int64
    mine["output.bias"] += 1
    assert not same(mine, session.get_parameters())


def test_a_stop_ends_training_between_batches(mlp, make_session):
    answers = iter([False, False, True])
    session = make_session(mlp, should_stop=lambda: next(answers))
    before = session.get_parameters()
    with pytest.raises(Stopped):
        session.fit(CONFIG, server_round=1)
    assert not same(before, session.get_parameters())


def test_divergence_is_an_error(mlp, make_session, kit):
    session = make_session(mlp, optimizer=kit.optimizer(lr=1e30))
    with pytest.raises(LocexError, match="diverged") as caught:
        session.fit(CONFIG, server_round=1)
    assert caught.value.error_code == "training-diverged"
    assert "learning rate" in caught.value.remedy


def test_fedprox_holds_weights_near_the_global_ones(mlp, make_session, kit):
    def distance(mu):
        session = make_session(mlp, optimizer=kit.optimizer(lr=0.05))
        before = session.get_parameters()
        session.fit(TrainConfig(batch_size=16, epochs=5), server_round=1, proximal_mu=mu)
        after = session.get_parameters()
        return sum(float(np.square(after[name] - before[name]).sum()) for name in before)

    assert distance(5.0) < 0.25 * distance(0.0)


def test_fedprox_adds_the_gradient_of_its_term(mlp, make_session, kit):
    train = kit.blobs(examples=16)
    session = make_session(mlp, train=train, optimizer=kit.optimizer(lr=0.1))
    model = kit.architecture("mlp", {"input_size": [8], "hidden": [16], "num_classes": 3})
    model.load_state_dict({name: torch.from_numpy(array) for name, array in session.get_parameters().items()})
    start = [weight.detach().clone() for weight in model.parameters()]
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        plain.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(train.x)), torch.from_numpy(train.y))
        for weight, anchor in zip(model.parameters(), start, strict=True):
            loss = loss + 0.5 * 0.5 * (weight - anchor).square().sum()
        loss.backward()
        plain.step()
    session.fit(TrainConfig(batch_size=16, epochs=3), server_round=1, proximal_mu=0.5)
    for name, weight in model.state_dict().items():
        np.testing.assert_allclose(session.get_parameters()[name], weight.numpy(), atol=1e-5)


class Rates:
    """Notes the learning rate of every step."""

    def __init__(self, factory):
        self.seen = []
        self._factory = factory

    def __call__(self, parameters):
        optimizer = self._factory(parameters)
        optimizer.register_step_pre_hook(lambda made, *_: self.seen.append(made.param_groups[0]["lr"]))
        return optimizer


def rates(mlp, make_session, kit, entries, **fields):
    noted = Rates(kit.optimizer(lr=0.1))
    session = make_session(mlp, optimizer=noted, train=kit.blobs(examples=32), config=entries[0], **fields)
    for server_round, entry in enumerate(entries, start=1):
        session.fit(entry, server_round=server_round)
    return noted.seen


def test_the_scheduler_steps_by_epoch_across_rounds(mlp, make_session, kit):
    entries = [TrainConfig(batch_size=16, epochs=1)] * 4
    seen = rates(mlp, make_session, kit, entries, scheduler=kit.scheduler(step_size=2, gamma=0.5))
    assert seen == pytest.approx([0.1] * 4 + [0.05] * 4)


def test_warm_up_by_steps_then_its_scheduler(mlp, make_session, kit):
    entries = [TrainConfig(batch_size=16, epochs=1)] * 6
    seen = rates(
        mlp,
        make_session,
        kit,
        entries,
        warmup=WarmupConfig(warmup_iters=4, warmup_factor=0.2),
        warmup_scheduler=kit.scheduler(step_size=2, gamma=0.5),
        scheduler=kit.scheduler(step_size=1, gamma=0.1),
    )
    assert seen == pytest.approx([0.02, 0.04, 0.06, 0.08] + [0.1] * 4 + [0.05] * 4)
    assert seen[4] == 0.1


def test_warm_up_by_epochs_then_the_job_s_scheduler(mlp, make_session, kit):
    entries = [TrainConfig(batch_size=16, epochs=1)] * 4
    warmup = WarmupConfig(scheduler="linear", warmup_epochs=2, warmup_factor=0.5)
    seen = rates(mlp, make_session, kit, entries, warmup=warmup, scheduler=kit.scheduler(step_size=1, gamma=0.5))
    assert seen == pytest.approx([0.05] * 2 + [0.075] * 2 + [0.1] * 2 + [0.05] * 2)


def test_another_entry_s_learning_rate_is_followed(mlp, make_session, kit):
    # the first entry's rate was injected by the caller, if at all: the optimizer's own 0.1 stands
    entries = [TrainConfig(batch_size=16, learning_rate=rate) for rate in (0.3, None, 0.3, 0.2, 0.2)]
    assert rates(mlp, make_session, kit, entries) == [0.1] * 6 + [0.2] * 4
    seen = rates(mlp, make_session, kit, entries, scheduler=kit.scheduler(step_size=1, gamma=0.5))
    assert seen == pytest.approx([0.1] * 2 + [0.05] * 2 + [0.025] * 2 + [0.025] * 2 + [0.0125] * 2)


@pytest.mark.parametrize(
    ("optimizer", "architecture"), [("sgd", "mlp"), ("adam", "cnn"), ("fused", "cnn"), ("amsgrad", "mlp")]
)
def test_a_restored_training_goes_on_bit_equal(optimizer, architecture, tmp_path, make_session, kit):
    size = (8,) if architecture == "mlp" else (3, 8, 8)
    config = {"input_size": list(size), "num_classes": 3, "dropout": 0.2}
    write_architecture(tmp_path / "m.zip", architecture=architecture, config=config)
    chosen = {
        "sgd": kit.optimizer("sgd", lr=0.1, momentum=0.9),
        "adam": kit.optimizer("adam", lr=0.01),
        "fused": kit.optimizer("adam", lr=0.01, fused=True),
        "amsgrad": kit.optimizer("adam", lr=0.01, amsgrad=True, betas=[0.8, 0.9]),
    }[optimizer]
    data = kit.blobs(size=size)

    def session():
        return make_session(
            tmp_path / "m.zip",
            train=data,
            test=data,
            optimizer=chosen,
            warmup=WarmupConfig(warmup_iters=15),
            warmup_scheduler=kit.scheduler(step_size=1, gamma=0.9),
        )

    whole = session()
    for server_round in (1, 2):
        whole.fit(CONFIG, server_round=server_round)
        whole.evaluate(CONFIG)
    whole.save_state(tmp_path / "state")
    parameters = whole.get_parameters()
    torch.manual_seed(12345)
    resumed = session()
    resumed.load_state(tmp_path / "state")
    resumed.set_parameters(parameters)
    for server_round in (3, 4):
        told = [each.fit(CONFIG, server_round=server_round) for each in (whole, resumed)]
        assert told[0] == told[1]
        assert same(whole.get_parameters(), resumed.get_parameters())


def test_warm_up_is_resumed_where_it_was(mlp, tmp_path, make_session, kit):
    warmup = WarmupConfig(warmup_epochs=4, warmup_factor=0.5)
    config = TrainConfig(batch_size=90)
    noted = [Rates(kit.optimizer(lr=0.1)) for _ in range(2)]
    first, second = (make_session(mlp, optimizer=each, warmup=warmup) for each in noted)
    first.fit(config, server_round=1)
    first.save_state(tmp_path)
    second.load_state(tmp_path)
    for server_round in range(2, 7):
        second.fit(config, server_round=server_round)
    assert noted[0].seen + noted[1].seen == pytest.approx([0.05, 0.0625, 0.075, 0.0875, 0.1, 0.1])


def test_a_state_of_another_kind_is_refused(mlp, tmp_path, make_session, kit):
    session = make_session(mlp)
    session.fit(CONFIG, server_round=1)
    session.save_state(tmp_path)
    with pytest.raises(LocexError, match="of SGD, the job has Adam"):
        make_session(mlp, optimizer=kit.optimizer("adam")).load_state(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a mapping
    content["version"] = "9.1.0"
    safetensors.torch.save_file(tensors, path, metadata={"state": json.dumps(content)})
    with pytest.raises(LocexError, match=r"locex-torch-builder 9\.1\.0, installed is 1\.") as caught:
        session.load_state(tmp_path)
    assert caught.value.error_code == "state-incompatible"
    path.write_bytes(b"")
    with pytest.raises(SafetensorError):
        session.load_state(tmp_path)


def test_a_model_without_parameters_is_refused(tmp_path, make_context, kit, mlp):
    from locex_torch_builder.session import PytorchSession

    def frozen(name, fields, seed):
        return kit.architecture(name, fields, seed).requires_grad_(requires_grad=False)

    with pytest.raises(InvalidModel, match="no parameters to train"):
        PytorchSession(make_context(mlp, architecture=frozen), "cross_entropy", [])
