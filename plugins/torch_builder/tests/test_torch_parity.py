"""Every optimizer with every scheduler trains like torch called by hand, and goes on after a restart as if without."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as s

from locex.api import Dataset
from locex.schemas.job import TrainConfig, WarmupConfig
from locex_torch_builder.batches import BatchPlan

CONFIG = TrainConfig(batch_size=32, epochs=2)
SEED = 7

OPTIMIZERS = {
    "adadelta": ("Adadelta", {"lr": 0.5, "rho": 0.8, "weight_decay": 0.01}),
    "adagrad": ("Adagrad", {"lr": 0.05, "lr_decay": 0.01, "initial_accumulator_value": 0.1}),
    "adam": ("Adam", {"lr": 0.01, "amsgrad": True}),
    "adamw": ("AdamW", {"lr": 0.01, "betas": (0.8, 0.9)}),
    "sparseadam": ("SparseAdam", {"lr": 0.05}),
    "adamax": ("Adamax", {"lr": 0.01}),
    "asgd": ("ASGD", {"lr": 0.05, "t0": 2, "lambd": 0.01}),
    "lbfgs": ("LBFGS", {"lr": 0.1, "max_iter": 3, "history_size": 5}),
    "nadam": ("NAdam", {"lr": 0.01, "momentum_decay": 0.01}),
    "radam": ("RAdam", {"lr": 0.01, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    "rmsprop": ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    "rprop": ("Rprop", {"lr": 0.01, "etas": (0.4, 1.3)}),
    "sgd": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
}
WITHOUT_MOMENTUM = {"adadelta", "adagrad", "asgd", "lbfgs", "rprop"}
BY_BATCH = {"cycliclr", "onecyclelr"}


def cyclic(o, **more):
    return s.CyclicLR(o, base_lr=0.005, max_lr=0.02, step_size_up=4, mode="triangular2", **more)


def one_cycle(o, **more):
    return s.OneCycleLR(o, max_lr=0.02, epochs=4, steps_per_epoch=3, **more)


def sequence(o):
    return s.SequentialLR(o, [s.ConstantLR(o, 0.5), s.MultiStepLR(o, [1])], [2])


def chain(o):
    return s.ChainedScheduler([s.LinearLR(o, 0.5), s.MultiStepLR(o, [2, 3], 0.5), s.LambdaLR(o, lambda e: 0.9**e)], o)


def plateau(o):
    return s.ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=0.5, cooldown=1)


SCHEDULERS = {
    "lambdalr": ({"lr_lambda": "0.9 ** epoch"}, lambda o: s.LambdaLR(o, lambda e: 0.9**e)),
    "multiplicativelr": ({"lr_lambda": "0.9 + epoch / 100"}, lambda o: s.MultiplicativeLR(o, lambda e: 0.9 + e / 100)),
    "steplr": ({"step_size": 2}, lambda o: s.StepLR(o, 2)),
    "multisteplr": ({"milestones": [1, 3], "gamma": 0.5}, lambda o: s.MultiStepLR(o, [1, 3], 0.5)),
    "constantlr": ({"factor": 0.3, "total_iters": 3}, lambda o: s.ConstantLR(o, 0.3, 3)),
    "linearlr": ({"start_factor": 0.2, "total_iters": 3}, lambda o: s.LinearLR(o, 0.2, total_iters=3)),
    "exponentiallr": ({"gamma": 0.8}, lambda o: s.ExponentialLR(o, 0.8)),
    "cosineannealinglr": ({"T_max": 3, "eta_min": 0.001}, lambda o: s.CosineAnnealingLR(o, 3, 0.001)),
    "chainedscheduler": (
        {
            "schedulers": [
                {"scheduler": "linearlr", "start_factor": 0.5},
                {"scheduler": "multisteplr", "milestones": [2, 3], "gamma": 0.5},
                {"scheduler": "lambdalr", "lr_lambda": "0.9 ** epoch"},
            ]
        },
        chain,
    ),
    "sequentiallr": (
        {
            "schedulers": [
                {"scheduler": "constantlr", "factor": 0.5},
                {"scheduler": "multisteplr", "milestones": [1]},
            ],
            "milestones": [2],
        },
        sequence,
    ),
    "reducelronplateau": (
        {"monitor": "loss", "factor": 0.5, "patience": 0, "threshold": 0.5, "cooldown": 1},
        plateau,
    ),
    "cycliclr": ({"base_lr": 0.005, "max_lr": 0.02, "step_size_up": 4, "mode": "triangular2"}, cyclic),
    "onecyclelr": ({"max_lr": 0.02, "epochs": 4, "steps_per_epoch": 3}, one_cycle),
    "cosineannealingwarmrestarts": ({"T_0": 2, "T_mult": 2}, lambda o: s.CosineAnnealingWarmRestarts(o, 2, 2)),
}
ORDERED = list(SCHEDULERS)


def words():
    """Sentences of words, most of which tell the class."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 90)
    return Dataset(np.where(random.random((90, 5)) < 0.7, y[:, None], random.integers(3, 20, (90, 5))), y)


def blank_model(optimizer, kit):
    if optimizer == "sparseadam":
        torch.manual_seed(1)
        return nn.EmbeddingBag(20, 3, sparse=True)
    return kit.architecture("mlp", {"input_size": [8], "hidden": [6], "num_classes": 3}, 1)


@pytest.fixture
def session(bare, make_session, kit):
    def make(optimizer, scheduler, **fields):
        data = words() if optimizer == "sparseadam" else kit.blobs()
        chosen = dict(SCHEDULERS[scheduler][0]) if scheduler else {}
        if scheduler in BY_BATCH and optimizer in WITHOUT_MOMENTUM:
            chosen["cycle_momentum"] = False
        return make_session(
            bare,
            architecture=lambda name, fields, seed: blank_model(optimizer, kit),
            train=data,
            test=data,
            optimizer=kit.optimizer(optimizer, **OPTIMIZERS[optimizer][1]),
            scheduler=kit.scheduler(scheduler, **chosen) if scheduler else None,
            seed=SEED,
            metrics=(),
            **fields,
        )

    return make


def by_hand(optimizer, scheduler, kit, rounds=2):
    model = blank_model(optimizer, kit)
    data = words() if optimizer == "sparseadam" else kit.blobs()
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    name, fields = OPTIMIZERS[optimizer]
    chosen = getattr(torch.optim, name)(model.parameters(), **fields)
    more = {"cycle_momentum": False} if scheduler in BY_BATCH and optimizer in WITHOUT_MOMENTUM else {}
    schedule = SCHEDULERS[scheduler][1](chosen, **more)
    for server_round in range(1, rounds + 1):
        plan = BatchPlan(len(x), CONFIG, seed=SEED, server_round=server_round)
        for epoch in range(CONFIG.epochs):
            total = 0.0
            for index in plan.epoch(epoch):
                seen = []

                def closure(index=index, seen=seen):
                    chosen.zero_grad()
                    loss = nn.functional.cross_entropy(model(x[index]), y[index])
                    loss.backward()
                    seen.append(loss.item())
                    return loss

                chosen.step(closure)
                total += seen[0] * len(index)
                if scheduler in BY_BATCH:
                    schedule.step()
            if scheduler == "reducelronplateau":
                schedule.step(total / len(x))
            elif scheduler not in BY_BATCH:
                schedule.step()
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def agree(optimizer, scheduler, session, kit):
    ours = session(optimizer, scheduler)
    before = ours.get_parameters()
    for server_round in (1, 2):
        ours.fit(CONFIG, server_round=server_round)
    theirs, after = by_hand(optimizer, scheduler, kit), ours.get_parameters()
    for name in before:
        np.testing.assert_allclose(after[name], theirs[name], rtol=0, atol=1e-6)
        assert not np.allclose(after[name], before[name], atol=1e-4)


SPREAD = [(optimizer, ORDERED[index]) for index, optimizer in enumerate(OPTIMIZERS)]
SPREAD.append(("adam", ORDERED[-1]))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize(("optimizer", "scheduler"), SPREAD)
def test_the_weights_are_torch_s(optimizer, scheduler, session, kit):
    agree(optimizer, scheduler, session, kit)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize(("optimizer", "scheduler"), sorted({*product(OPTIMIZERS, SCHEDULERS)} - {*SPREAD}))
def test_the_weights_are_torch_s_in_every_combination(optimizer, scheduler, session, kit):
    agree(optimizer, scheduler, session, kit)


def goes_on(make, tmp_path, rounds=(2, 3)):
    whole, first = make(), make()
    whole.fit(CONFIG, server_round=1)
    first.fit(CONFIG, server_round=1)
    first.save_state(tmp_path / "state")
    for server_round in rounds:
        resumed = make()
        resumed.load_state(tmp_path / "state")
        resumed.set_parameters(first.get_parameters())
        told = [each.fit(CONFIG, server_round=server_round) for each in (whole, resumed)]
        assert told[0] == told[1]
        ours, theirs = resumed.get_parameters(), whole.get_parameters()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
        first = resumed
        first.save_state(tmp_path / "state")


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_goes_on_after_a_restart_as_if_without(optimizer, session, tmp_path):
    goes_on(lambda: session(optimizer, "steplr"), tmp_path)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduler_goes_on_after_a_restart_as_if_without(scheduler, session, tmp_path):
    goes_on(lambda: session("adam", scheduler), tmp_path)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("length", [{"warmup_iters": 8}, {"warmup_epochs": 3}])
def test_a_warm_up_goes_on_after_a_restart_as_if_without(length, scheduler, session, tmp_path):
    goes_on(lambda: session("sgd", scheduler, warmup=WarmupConfig(warmup_factor=0.1, **length)), tmp_path)
