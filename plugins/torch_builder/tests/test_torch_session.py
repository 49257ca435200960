from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from locex.api import Dataset, Stopped
from locex.errors import DataUnavailable, FormatMismatch, InvalidConfiguration, InvalidModel, LocexError
from locex.schemas.job import JobConfiguration, TrainConfig
from locex.worker.checkpoint import Checkpoint
from locex.worker.participant import NodeParticipant
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


def test_a_model_without_parameters_is_refused(make_session, kit, mlp):
    def frozen(name, fields, seed):
        return kit.architecture(name, fields, seed).requires_grad_(requires_grad=False)

    with pytest.raises(InvalidModel, match="no parameters to train"):
        make_session(mlp, architecture=frozen)


def test_a_model_that_gives_no_tensor_is_refused(make_session, bare):
    class Pair(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(InvalidModel, match="no single tensor"):
        make_session(bare, architecture=lambda *_: Pair(8, 3))


@pytest.mark.parametrize("layer", [torch.nn.BatchNorm2d(8), torch.nn.Embedding(5, 5), torch.nn.Linear(9, 3)])
def test_inputs_that_a_layer_does_not_take_are_refused(layer, make_session, bare):
    with pytest.raises(FormatMismatch, match="does not take inputs of size"):
        make_session(bare, architecture=lambda *_: layer)


def test_the_lack_of_a_gpu_s_memory_is_no_wrong_model(make_session, bare):
    class Large(torch.nn.Linear):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nand a long story")

    with pytest.raises(MemoryError, match=r"^CUDA out of memory"):
        make_session(bare, architecture=lambda *_: Large(8, 3))


def test_weights_that_no_array_holds_are_refused(make_session, bare):
    with pytest.raises(InvalidModel, match=r"weight is of type torch\.bfloat16") as caught:
        make_session(bare, architecture=lambda *_: torch.nn.Linear(8, 3, dtype=torch.bfloat16))
    assert "float32" in caught.value.remedy


class Flat(torch.nn.Module):
    """Flattens with view, as many published models do; that takes no channels last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(2, 4, 3)
        self.output = torch.nn.Linear(64, 3)

    def forward(self, x):
        x = self.convolution(x).relu()
        return self.output(x.view(x.size(0), -1))


def test_a_model_that_views_its_tensors_is_trained(make_session, bare, kit):
    images = kit.blobs(size=(2, 6, 6))
    session = make_session(bare, architecture=lambda *_: Flat(), train=images, test=images)
    session.fit(TrainConfig(batch_size=16, epochs=4), server_round=1)
    assert session.evaluate(CONFIG).metrics["accuracy"] > 0.95


def by_hand(make_optimizer, session, train, kit, steps):
    """Train the mlp of a session on whole batches with PyTorch alone."""
    model = kit.architecture("mlp", {"input_size": [8], "hidden": [16], "num_classes": 3})
    model.load_state_dict({name: torch.from_numpy(array) for name, array in session.get_parameters().items()})
    optimizer = make_optimizer(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.from_numpy(train.x)), torch.from_numpy(train.y)).backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize(
    ("name", "way"),
    [("Adam", "fused"), ("AdamW", "fused")]
    + [(name, "foreach") for name in ("SGD", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop")],
)
def test_the_fast_way_to_update_trains_the_same(name, way, mlp, make_session, kit):
    train = kit.blobs(examples=16)
    # in one batch the order of examples only changes the order of sums
    session = make_session(mlp, train=train, optimizer=getattr(torch.optim, name))
    assert all(group[way] for group in session._optimizer.param_groups)
    plain = by_hand(lambda parameters: getattr(torch.optim, name)(parameters, foreach=False), session, train, kit, 5)
    session.fit(TrainConfig(batch_size=16, epochs=5), server_round=1)
    for key, weight in session.get_parameters().items():
        np.testing.assert_allclose(weight, plain[key].numpy(), atol=1e-5)


def test_the_way_to_update_that_a_job_names_is_kept(mlp, make_session, kit):
    for fields, foreach, fused in (({"foreach": "False"}, False, None), ({"fused": "False"}, None, False)):
        (group,) = make_session(mlp, optimizer=kit.optimizer("adam", **fields))._optimizer.param_groups
        assert (group["foreach"], group["fused"]) == (foreach, fused)


def lbfgs(**fields):
    return lambda parameters: torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe", **fields)


def test_lbfgs_evaluates_through_its_closure(mlp, make_session, kit):
    train = kit.blobs(examples=60)
    session = make_session(mlp, train=train, optimizer=lbfgs())
    before = session.evaluate(CONFIG)
    told = session.fit(TrainConfig(batch_size=60, epochs=3), server_round=1)
    assert told.examples == 60
    assert told.metrics["loss"] < before.loss / 100
    assert session.evaluate(CONFIG).metrics["accuracy"] == 1.0


def test_lbfgs_minimizes_fedproxs_term_too(mlp, make_session, kit):
    def distance(mu):
        session = make_session(mlp, train=kit.blobs(examples=60), optimizer=lbfgs())
        before = session.get_parameters()
        told = session.fit(TrainConfig(batch_size=60, epochs=3), server_round=1, proximal_mu=mu)
        after = session.get_parameters()
        return told.metrics["loss"], sum(float(np.square(after[name] - before[name]).sum()) for name in before)

    (free, far), (held, near) = distance(0.0), distance(2.0)
    assert near < 0.1 * far
    assert held > free


def test_sparse_gradients_are_neither_pulled_nor_clipped(make_session, bare, kit):
    words = Dataset(np.arange(12).reshape(12, 1) % 5, np.arange(12) % 5)

    def embedding(*_):
        return torch.nn.Sequential(torch.nn.Embedding(5, 5, sparse=True), torch.nn.Flatten())

    fields = {"architecture": embedding, "train": words, "test": words}
    session = make_session(bare, optimizer=lambda p: torch.optim.SparseAdam(p, lr=0.1), **fields)
    session.fit(TrainConfig(batch_size=4, epochs=20), server_round=1)
    assert session.evaluate(CONFIG).metrics["accuracy"] == 1.0
    with pytest.raises(InvalidConfiguration, match="FedProx") as caught:
        session.fit(CONFIG, server_round=2, proximal_mu=0.1)
    assert "proximal_mu" in caught.value.remedy
    for option in ("gradient_clip_norm", "gradient_clip_value"):
        with pytest.raises(InvalidConfiguration, match="sparse, which clipping"):
            make_session(bare, options={option: 1}, **fields).fit(CONFIG, server_round=1)


class Plateau:
    """A scheduler plugin's product that notes what it is told."""

    def __init__(self, monitor):
        self.monitor = monitor
        self.seen = []

    def __call__(self, optimizer):
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        scheduler.monitor = self.monitor
        step = scheduler.step
        scheduler.step = lambda value: (self.seen.append(value), step(value))
        return scheduler


@pytest.mark.parametrize("monitor", ["loss", "accuracy", "val_loss", "val_accuracy"])
def test_a_monitored_metric_is_told_after_every_epoch(monitor, mlp, make_session):
    plateau = Plateau(monitor)
    session = make_session(mlp, scheduler=plateau)
    told = session.fit(TrainConfig(batch_size=16, epochs=3), server_round=1)
    names = {"loss", "accuracy"} | ({"val_loss", "val_accuracy"} if monitor.startswith("val_") else set())
    assert set(told.metrics) == names
    assert len(plateau.seen) == 3
    assert plateau.seen[-1] == told.metrics[monitor]
    if monitor.startswith("val_"):
        found = session.evaluate(CONFIG)
        assert told.metrics["val_loss"] == pytest.approx(found.loss)
        assert told.metrics["val_accuracy"] == pytest.approx(found.metrics["accuracy"])


def test_a_monitored_metric_does_not_change_training(mlp, make_session):
    results = []
    for monitor in ("loss", "val_loss"):
        plateau = Plateau(monitor)
        session = make_session(mlp, scheduler=plateau)
        session.fit(TrainConfig(batch_size=16, epochs=2), server_round=1)
        results.append(session.get_parameters())
    assert same(*results)


@pytest.mark.parametrize(("monitor", "test"), [("f1", None), ("val_recall", None), ("val_loss", 0)])
def test_what_cannot_be_monitored_is_refused(monitor, test, mlp, make_session):
    data = None if test is None else Dataset(np.zeros((0, 8)), np.zeros(0, int))
    with pytest.raises(InvalidConfiguration, match=f"no metric '{monitor}'") as caught:
        make_session(mlp, scheduler=Plateau(monitor), test=data)
    assert caught.value.errors[0]["path"] == "/scheduler_config/monitor"


def test_entries_of_the_configuration_train_as_they_say(mlp, make_session):
    session = make_session(mlp)
    entries = [
        TrainConfig(config_id="small", batch_size=8, steps_per_epoch=3),
        TrainConfig(config_id="large", batch_size=45, epochs=2),
        TrainConfig(batch_size=1000),
    ]
    assert [session.fit(entry, server_round=i).examples for i, entry in enumerate(entries, 1)] == [24, 90, 90]


def test_the_server_s_fit_configuration_chooses_an_entry(mlp, make_session, tmp_path):
    job = {
        "server_address": "h:1",
        "model_name": "m",
        "model_version": "1",
        "config": [
            {"config_id": "small", "batch_size": 8, "steps_per_epoch": 3},
            {"config_id": "large", "batch_size": 45},
        ],
        "optimizer_config": {"optimizer": "sgd"},
    }
    participant = NodeParticipant(
        job=JobConfiguration.model_validate(job),
        session=make_session(mlp),
        mechanisms=[],
        checkpoint=Checkpoint(tmp_path / "checkpoint"),
        send=lambda _: None,
        should_stop=lambda: False,
        max_norm=1e6,
    )
    weights = list(participant.parameters().values())
    chosen = [{"config_id": "large"}, {"config_id": "small"}, {"config_id": "unknown"}, {}]
    told = [participant.fit(weights, one | {"server_round": number}) for number, one in enumerate(chosen, 1)]
    assert [update.examples for update in told] == [90, 24, 24, 24]


def test_an_exported_program_is_trained(tmp_path, make_session, kit):
    model = kit.architecture("cnn", {"input_size": [2, 6, 6], "num_classes": 3, "dropout": 0.1, "batch_norm": True})
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model.train(), (torch.zeros(2, 2, 6, 6),), dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "m.pt2")
    images = kit.blobs(size=(2, 6, 6))
    session = make_session(tmp_path / "m.pt2", train=images, test=images, scheduler=Plateau("val_accuracy"))
    told = session.fit(TrainConfig(batch_size=16, epochs=4), server_round=1)
    assert told.metrics["val_accuracy"] > 0.9
    assert session.evaluate(CONFIG) == session.evaluate(CONFIG)
