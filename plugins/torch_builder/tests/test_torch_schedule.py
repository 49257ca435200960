from __future__ import annotations

import numpy as np
import pytest
from torch.optim import lr_scheduler

from locex.api import Dataset
from locex.errors import InvalidConfiguration, LocexError
from locex.schemas.job import TrainConfig, WarmupConfig

CONFIG = TrainConfig(batch_size=32, epochs=2)
"""Three steps per epoch of the 90 examples."""

NEVER_BETTER = {"threshold": 0.99, "patience": 0, "factor": 0.5}
SCHEDULERS = {
    "lambdalr": {"lr_lambda": "0.9 ** epoch"},
    "multiplicativelr": {"lr_lambda": "0.9"},
    "steplr": {"step_size": 2},
    "multisteplr": {"milestones": [1, 3]},
    "constantlr": {"total_iters": 2},
    "linearlr": {"total_iters": 2},
    "exponentiallr": {"gamma": 0.8},
    "cosineannealinglr": {"T_max": 3},
    "chainedscheduler": {"schedulers": [{"scheduler": "linearlr"}, {"scheduler": "steplr", "step_size": 1}]},
    "sequentiallr": {
        "schedulers": [{"scheduler": "constantlr"}, {"scheduler": "steplr", "step_size": 1}],
        "milestones": [2],
    },
    "reducelronplateau": {"monitor": "loss", **NEVER_BETTER},
    "cycliclr": {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 2},
    "onecyclelr": {"max_lr": 0.2, "total_steps": 12},
    "cosineannealingwarmrestarts": {"T_0": 2},
}


@pytest.fixture
def rates(mlp, make_session, kit):
    """The learning rate of every step of some rounds."""

    def run(scheduler=None, *, rounds=4, entries=None, lr=0.1, **fields):
        seen = []

        def noting(parameters):
            optimizer = kit.optimizer(lr=lr, momentum=0.9)(parameters)
            optimizer.register_step_pre_hook(lambda made, *_: seen.append(made.param_groups[0]["lr"]))
            return optimizer

        entries = entries or [CONFIG] * rounds
        options = {"optimizer": noting, "metrics": (), "config": entries[0], "scheduler": scheduler, **fields}
        session = make_session(mlp, **options)
        for server_round, entry in enumerate(entries, start=1):
            session.fit(entry, server_round=server_round)
        return seen

    return run


# --- plateaus ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("monitor", ["loss", "val_loss"])
def test_a_plateau_is_seen_at_the_end_of_every_epoch(monitor, rates, kit):
    scheduler = kit.scheduler("reducelronplateau", monitor=monitor, **NEVER_BETTER)
    assert rates(scheduler, rounds=2) == pytest.approx([0.1] * 6 + [0.05] * 3 + [0.025] * 3)


def test_a_metric_of_the_test_data_is_evaluated_in_every_epoch(mlp, make_session, kit):
    scheduler = kit.scheduler("reducelronplateau", monitor="val_accuracy", mode="max")
    session = make_session(mlp, scheduler=scheduler)
    told = session.fit(CONFIG, server_round=1).metrics
    assert told["val_accuracy"] == session.evaluate(CONFIG).metrics["accuracy"]


@pytest.mark.parametrize("monitor", ["accuracy", "val_recall"])
def test_what_cannot_be_monitored_is_refused_with_what_can(monitor, rates, kit):
    with pytest.raises(InvalidConfiguration, match="there are: loss, val_loss") as caught:
        rates(kit.scheduler("reducelronplateau", monitor=monitor))
    assert caught.value.errors[0]["path"] == "/scheduler_config/monitor"


def test_without_test_data_nothing_of_it_can_be_monitored(rates, kit):
    with pytest.raises(InvalidConfiguration, match="'val_loss' to monitor; there are: loss"):
        rates(kit.scheduler("reducelronplateau"), test=Dataset(np.zeros((0, 8)), np.zeros(0, int)))


def test_a_plugin_s_plateau_watches_the_test_loss_or_what_it_names(rates):
    def of_another(optimizer):
        return lr_scheduler.ReduceLROnPlateau(optimizer, **NEVER_BETTER)

    def naming(optimizer):
        scheduler = of_another(optimizer)
        scheduler.monitor = "f1"
        return scheduler

    assert rates(of_another, rounds=2) == pytest.approx([0.1] * 6 + [0.05] * 3 + [0.025] * 3)
    with pytest.raises(InvalidConfiguration, match="no metric 'f1'"):
        rates(naming)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_cycles_step_with_batches_between_their_own_rates(rates, kit):
    scheduler = kit.scheduler("cycliclr", base_lr=0, max_lr=0.2, step_size_up=2)
    assert rates(scheduler, rounds=2) == pytest.approx([0, 0.1, 0.2, 0.1] * 3)


def test_one_cycle_ends_before_a_training_that_goes_on(rates, kit):
    seen = rates(kit.scheduler("onecyclelr", max_lr=0.2, total_steps=6), rounds=2)
    assert seen[0] == pytest.approx(0.2 / 25)
    assert seen[7:] == [seen[6]] * 5


def test_a_sequence_of_cycles_steps_with_batches(rates, kit):
    cycle = {"scheduler": "cycliclr", "base_lr": 0.1, "max_lr": 0.3, "step_size_up": 1, "cycle_momentum": False}
    scheduler = kit.scheduler(
        "sequentiallr", schedulers=[cycle, cycle | {"scheduler": "cycliclr", "max_lr": 0.2}], milestones=[3]
    )
    assert rates(scheduler, rounds=1) == pytest.approx([0.1, 0.3, 0.1, 0.1, 0.2, 0.1])


# --- warm-up ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("length", [{"warmup_iters": 6}, {"warmup_epochs": 2}])
def test_every_scheduler_begins_after_the_warm_up(length, name, rates, kit):
    scheduler = kit.scheduler(name, **SCHEDULERS[name])
    full = {"cycliclr": 0.01, "onecyclelr": 0.2 / 25}.get(name, 0.1)
    seen = rates(scheduler, warmup=WarmupConfig(warmup_factor=0.5, **length))
    shares = [0.5 + step / 12 for step in range(6)] if "warmup_iters" in length else [0.5] * 3 + [0.75] * 3
    assert seen[:6] == pytest.approx([full * share for share in shares])
    assert seen[6:] == pytest.approx(rates(scheduler, rounds=3))


def test_faults_of_a_warm_up_s_scheduler_are_told_where_they_stand(rates, kit):
    warmup = WarmupConfig(warmup_iters=6)
    with pytest.raises(InvalidConfiguration) as caught:
        rates(warmup=warmup, warmup_scheduler=kit.scheduler("reducelronplateau", monitor="f1"))
    assert caught.value.errors[0]["path"] == "/warmup_config/scheduler_conf/monitor"
    with pytest.raises(InvalidConfiguration) as caught:
        rates(
            warmup=warmup,
            warmup_scheduler=kit.scheduler(
                "chainedscheduler", schedulers=[{"scheduler": "lambdalr", "lr_lambda": "1 / epoch"}]
            ),
        )
    assert caught.value.errors[0]["path"] == "/warmup_config/scheduler_conf/schedulers/0"


# --- entries ----------------------------------------------------------------------------------------------------------

ENTRIES = [TrainConfig(batch_size=90, learning_rate=rate) for rate in (0.1, 0.1, 0.2, 0.2)]


def test_nested_schedulers_follow_another_entry_s_rate(rates, kit):
    parts = [{"scheduler": "lambdalr", "lr_lambda": "0.5 ** epoch"}]
    scheduler = kit.scheduler("sequentiallr", schedulers=parts, milestones=[])
    assert rates(scheduler, entries=ENTRIES) == pytest.approx([0.1, 0.05, 0.05, 0.025])


def test_cycles_keep_their_own_rates(rates, kit):
    scheduler = kit.scheduler("cycliclr", base_lr=0.01, max_lr=0.02, step_size_up=1)
    assert rates(scheduler, entries=ENTRIES) == pytest.approx([0.01, 0.02, 0.01, 0.02])


# --- faults -----------------------------------------------------------------------------------------------------------


def test_an_expression_without_a_value_at_some_epoch_fails_that_round(rates, kit):
    with pytest.raises(InvalidConfiguration, match="cannot go on: float division by zero") as caught:
        rates(kit.scheduler("lambdalr", lr_lambda="1 / (3 - epoch)"))
    assert caught.value.errors[0]["path"] == "/scheduler_config"


def test_a_state_of_other_schedulers_is_refused(mlp, make_session, kit, tmp_path):
    session = make_session(mlp, scheduler=kit.scheduler("steplr", step_size=1))
    session.save_state(tmp_path)
    other = make_session(mlp, scheduler=kit.scheduler("chainedscheduler", **SCHEDULERS["chainedscheduler"]))
    with pytest.raises(LocexError, match="of SGD with StepLR, the job has SGD with ChainedScheduler") as caught:
        other.load_state(tmp_path)
    assert caught.value.error_code == "state-incompatible"
    with pytest.raises(LocexError, match="SGD with no scheduler"):
        make_session(mlp).load_state(tmp_path)


def test_lbfgs_trains_convolutions_through_the_session(tmp_path, make_session, kit):
    from locex_torch_builder.artefact import write_architecture

    write_architecture(tmp_path / "m.zip", architecture="cnn", config={"input_size": [3, 8, 8], "num_classes": 3})
    data = kit.blobs(size=(3, 8, 8))
    session = make_session(
        tmp_path / "m.zip", train=data, test=data, optimizer=kit.optimizer("lbfgs", lr=0.5, max_iter=5)
    )
    before = session.evaluate(CONFIG).loss
    session.fit(TrainConfig(batch_size=90, epochs=3), server_round=1)
    assert session.evaluate(CONFIG).loss < before / 2
    session.save_state(tmp_path)
    resumed = make_session(
        tmp_path / "m.zip", train=data, test=data, optimizer=kit.optimizer("lbfgs", lr=0.5, max_iter=5)
    )
    resumed.load_state(tmp_path)
    resumed.set_parameters(session.get_parameters())
    told = [each.fit(TrainConfig(batch_size=90), server_round=2) for each in (session, resumed)]
    assert told[0] == told[1]


def test_sparseadam_refuses_a_dense_model_in_its_first_round(mlp, make_session, kit):
    session = make_session(mlp, optimizer=kit.optimizer("sparseadam"))
    with pytest.raises(InvalidConfiguration, match="sparse gradients only"):
        session.fit(CONFIG, server_round=1)


def test_a_plugin_s_own_scheduler_is_stepped_and_saved(mlp, make_session, tmp_path):
    class Halving(lr_scheduler.LRScheduler):
        def get_lr(self):
            return [group["lr"] * (1 if self._is_initial else 0.5) for group in self.optimizer.param_groups]

    def run(session, server_round):
        session.fit(TrainConfig(batch_size=90), server_round=server_round)
        return session._optimizer.param_groups[0]["lr"]

    first = make_session(mlp, scheduler=Halving)
    assert run(first, 1) == pytest.approx(0.05)
    first.save_state(tmp_path)
    second = make_session(mlp, scheduler=Halving)
    second.load_state(tmp_path)
    assert run(second, 2) == pytest.approx(0.025)
