from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from locex.errors import LocexError
from locex.schemas.job import TrainConfig, WarmupConfig
from locex_torch_builder.artefact import write_architecture

CONFIG = TrainConfig(batch_size=16, epochs=2)


def same(left, right):
    assert list(left) == list(right)
    return all(np.array_equal(left[name], right[name]) for name in left)


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
    with pytest.raises(LocexError, match=r"of SGD.*the job has Adam"):
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
