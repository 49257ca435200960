"""``dp-sgd`` on PyTorch models: the gradient of every example, clipped; noise; what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from locex.api import Dataset, Differentiable
from locex.errors import InvalidConfiguration, PrivacyRefused
from locex.schemas.job import TrainConfig
from locex_privacy.dp_sgd import torch_gradients

ONE_STEP = TrainConfig(batch_size=8, steps_per_epoch=1)


def mlp():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def cnn():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


def words():
    torch.manual_seed(3)
    return nn.Sequential(nn.Embedding(20, 6), nn.Flatten(), nn.LayerNorm(30), nn.Linear(30, 3))


class Scale(nn.Module):
    """A layer that Opacus does not know."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(0.5, 2, 8))

    def forward(self, x):
        return x * self.factor


def unknown():
    torch.manual_seed(3)
    return nn.Sequential(Scale(), nn.Linear(8, 3))


def tokens(examples=40):
    random = np.random.default_rng(0)
    return Dataset(random.integers(0, 20, (examples, 5)), random.integers(0, 3, examples))


def by_hand(module, data, batch, norm, expected):
    """The mean of clipped gradients by name, an example at a time, as Abadi et al. write it."""
    total = {name: torch.zeros_like(one) for name, one in module.named_parameters()}
    for index in batch:
        module.zero_grad()
        output = module(torch.from_numpy(data.x[index : index + 1]))
        nn.functional.cross_entropy(output, torch.from_numpy(data.y[index : index + 1])).backward()
        length = torch.cat([one.grad.flatten() for one in module.parameters()]).norm()
        for name, one in module.named_parameters():
            total[name] += one.grad * min(1, norm / length)
    module.zero_grad()
    return {name: one / expected for name, one in total.items()}


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("norm", [1e-2, 1.0, 1e3])
@pytest.mark.parametrize(("create", "data"), [(mlp, None), (cnn, "images"), (words, "tokens"), (unknown, None)])
def test_a_step_goes_down_the_clipped_gradients_of_each_example(site, session, kit, create, data, norm, ghost):
    given = {"images": kit.blobs(size=(1, 6, 6)), "tokens": tokens(), None: kit.blobs()}[data]
    batch = [3, 5, 8, 13, 21]
    wanted = by_hand(create(), given, batch, norm, expected=8)
    trained = session("pytorch", create, given)
    mechanism = site.mechanism(
        ONE_STEP, max_grad_norm=norm, normal=kit.silent, choice=kit.always(batch), ghost_clipping=ghost
    )
    mechanism.prepare(trained)

    sent = kit.train(mechanism, trained, ONE_STEP)

    for name, gradient in wanted.items():
        moved = sent.reference[name] - sent.parameters[name]  # the learning rate is 1
        np.testing.assert_allclose(moved, gradient.numpy(), rtol=1e-3, atol=2e-6)


def test_batches_too_large_for_memory_are_clipped_in_parts(site, session, kit, monkeypatch):
    data, batch, moved = kit.blobs(), list(range(11)), []
    for memory in (torch_gradients.BYTES, 4000):
        monkeypatch.setattr(torch_gradients, "BYTES", memory)
        trained = session("pytorch", mlp, data)
        mechanism = site.mechanism(ONE_STEP, normal=kit.silent, choice=kit.always(batch))
        mechanism.prepare(trained)
        moved.append(kit.train(mechanism, trained, ONE_STEP).parameters)

    for name, tensor in moved[0].items():
        np.testing.assert_allclose(moved[1][name], tensor, rtol=1e-5, atol=1e-7)


def test_noise_of_z_times_c_is_shared_by_the_expected_batch(site, session, kit):
    trained = session("pytorch", lambda: nn.Linear(8, 3), kit.blobs())
    mechanism = site.mechanism(ONE_STEP, max_grad_norm=0.5, noise_multiplier=3, normal=np.ones, choice=kit.always([]))
    mechanism.prepare(trained)

    sent = kit.train(mechanism, trained, ONE_STEP)

    for name, tensor in sent.parameters.items():
        np.testing.assert_allclose(sent.reference[name] - tensor, 3 * 0.5 / 8, rtol=1e-5)


def test_noise_reaches_every_weight_and_never_repeats_whatever_the_seed(site, session, kit):
    data, released = kit.blobs(size=(200,)), []
    for _ in range(2):
        torch.manual_seed(0)
        trained = session("pytorch", lambda: nn.Linear(200, 300, bias=False), data, seed=7)
        mechanism = site.mechanism(ONE_STEP, noise_multiplier=2, choice=kit.always([]))
        mechanism.prepare(trained)
        torch.manual_seed(0)
        sent = kit.train(mechanism, trained, ONE_STEP)
        released.append(((sent.parameters["weight"] - sent.reference["weight"]) * 8).ravel())

    for noise in released:
        assert noise.std() == pytest.approx(2, rel=0.02)  # 60,000 values: the standard error is 0.3 %
        assert abs(noise.mean()) < 0.05
        assert np.count_nonzero(noise) == noise.size
    assert abs(np.corrcoef(*released)[0, 1]) < 0.03


@pytest.mark.parametrize("ghost", [False, True])
def test_an_example_without_a_finite_gradient_counts_as_none(site, session, kit, ghost):
    good = kit.blobs()
    x = good.x.copy()
    x[5] = np.inf
    released = []
    for data, batch in ((good, [3, 8]), (Dataset(x, good.y), [3, 5, 8])):
        trained = session("pytorch", mlp, data)
        mechanism = site.mechanism(ONE_STEP, normal=kit.silent, choice=kit.always(batch), ghost_clipping=ghost)
        mechanism.prepare(trained)
        released.append(kit.train(mechanism, trained, ONE_STEP).parameters)

    for name, tensor in released[0].items():
        np.testing.assert_allclose(released[1][name], tensor, rtol=1e-5, atol=1e-7)


def test_one_examples_loss_does_not_make_a_round_fail(site, session, kit):
    """That a round failed shows, and no noise covers it."""
    good = kit.blobs()
    x = good.x.copy()
    x[5] = np.inf
    trained = session("pytorch", mlp, Dataset(x, good.y), test=good)
    mechanism = site.mechanism(ONE_STEP, normal=kit.silent, choice=kit.always([5]))
    mechanism.prepare(trained)
    mechanism.before_fit({})

    assert trained.fit(ONE_STEP, server_round=1).metrics == {}


def test_a_mean_loss_that_leaves_some_targets_out_weighs_nobody_by_the_others(kit):
    data, module = kit.blobs(), mlp()
    x, y = torch.from_numpy(data.x[:4]), torch.from_numpy(data.y[:4])
    left_out = torch.tensor([-100, -100, -100, int(y[3])])  # cross_entropy divides by the number of the others
    parts = Differentiable(
        "torch", module, list(module.parameters()), nn.functional.cross_entropy, 40, lambda: (x[:2], y[:2])
    )
    clipped = torch_gradients.TorchGradients(parts, 1e3, ghost=False)

    with clipped.attached():
        _, _, sums = clipped.sums(x, left_out)

    for found, wanted in zip(sums, by_hand(mlp(), data, [3], 1e3, expected=1).values(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_fedprox_and_momentum_act_on_private_gradients(site, session, kit):
    config = TrainConfig(batch_size=8, steps_per_epoch=2)
    trained = session("pytorch", lambda: nn.Linear(8, 3), kit.blobs(), optimizer=kit.optimizer("pytorch", rate=0.1))
    mechanism = site.mechanism(config, noise_multiplier=8, normal=np.ones, choice=kit.always([]))
    mechanism.prepare(trained)

    sent = kit.train(mechanism, trained, config, proximal_mu=5.0)

    first = 0.1 * 1.0  # rate times z · C / 8
    second = first + 0.1 * (1.0 - 5.0 * first)
    for name, tensor in sent.parameters.items():
        np.testing.assert_allclose(sent.reference[name] - tensor, second, rtol=1e-5)


def test_examples_are_augmented_one_by_one(site, session, kit):
    seen = []

    def augment(batch, generator):
        seen.append(len(batch))
        return Dataset(batch.x + generator.normal(size=batch.x.shape).astype(np.float32), batch.y)

    trained = session("pytorch", mlp, kit.blobs(), augment=augment)
    mechanism = site.mechanism(ONE_STEP, choice=kit.always([1, 2, 3]))
    mechanism.prepare(trained)
    seen.clear()
    kit.train(mechanism, trained, ONE_STEP)

    assert seen == [1, 1, 1]


def dropping():
    torch.manual_seed(3)
    return nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3))


def noisy(batch, generator):
    return Dataset(batch.x + generator.normal(size=batch.x.shape).astype(np.float32), batch.y)


@pytest.mark.parametrize(("create", "augment"), [(dropping, None), (mlp, noisy)])
def test_draws_of_the_training_are_not_those_of_the_jobs_seed(site, session, kit, create, augment):
    """Who knew them would know how one example more shifts the draws of all others: no norm bounds that."""
    released = []
    for _ in range(2):
        trained = session("pytorch", create, kit.blobs(), augment=augment, seed=7)
        mechanism = site.mechanism(ONE_STEP, normal=kit.silent, choice=kit.always(list(range(20))))
        mechanism.prepare(trained)
        tensors = kit.train(mechanism, trained, ONE_STEP).parameters.values()
        released.append(np.concatenate([one.ravel() for one in tensors]))

    assert not np.allclose(*released)


def test_the_model_is_evaluated_and_exported_as_any_other(site, session, kit, tmp_path):
    trained = session("pytorch", mlp, kit.blobs(), options={"export": {"formats": ["torchscript", "pt2"]}})
    mechanism = site.mechanism(ONE_STEP)
    mechanism.prepare(trained)
    kit.train(mechanism, trained, ONE_STEP)

    paths = trained.export(tmp_path / "model", ["torchscript", "pt2"])

    assert {path.name for path in paths} == {"model.zip", "model.pt", "model.pt2"}
    assert not any(hasattr(one, "grad_sample") for one in trained.differentiable().weights)
    assert trained.evaluate(ONE_STEP).examples == 40


# --- what is refused


class Centred(nn.Module):
    """Couples the examples of a batch without keeping anything."""

    def forward(self, x):
        return x - x.mean(0)


class Counted(nn.Module):
    """Keeps something of the data."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, x):
        if self.training:
            self.seen += x.detach().sum(0)
        return x


class Scaled(nn.Module):
    """Couples the examples of a batch where no gradient shows it."""

    def forward(self, x):
        return x / x.detach().abs().amax()


class Rewritten(nn.Module):
    """Looks words up, and shortens those that it found: in its weights, past all noise."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 6, max_norm=0.1)
        self.last = nn.Linear(48, 3)

    def forward(self, x):
        return self.last(self.words((x.abs() * 4).long().clamp(0, 19)).flatten(1))


class Borrowed(nn.Module):
    """Uses another layer's weight behind its back."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.layer(nn.functional.linear(x, self.layer.weight).tanh()))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(8, 4, batch_first=True)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.cell(x.unsqueeze(1))[0][:, -1])


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize(
    ("create", "message", "remedy"),
    [
        (
            lambda: nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)),
            r"^1 \(BatchNorm1d\)",
            "GroupNorm",
        ),
        (lambda: nn.Sequential(nn.BatchNorm1d(8, affine=False), nn.Linear(8, 3)), r"^0 \(BatchNorm1d\)", "GroupNorm"),
        (Recurrent, r"cell \(LSTM\)", "opacus.layers.DPLSTM"),
        (lambda: nn.Sequential(Centred(), nn.Linear(8, 3)), "part in each other's outputs", "GroupNorm"),
        (lambda: nn.Sequential(nn.Linear(8, 3), Centred()), "part in each other's outputs", "GroupNorm"),
        (lambda: nn.Sequential(Scaled(), nn.Linear(8, 3)), "part in each other's outputs", "GroupNorm"),
        (Rewritten, r"words \(Embedding\).*max_norm", "max_norm"),
        (lambda: nn.Sequential(Counted(), nn.Linear(8, 3)), "keeps 0.seen of its training data", "statistics"),
        (Borrowed, "does not see all of the gradient", "nowhere else"),
        (lambda: torch.jit.script(mlp()), "TorchScript program", "named architecture"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_models_without_private_gradients_are_refused(site, session, kit, create, message, remedy, ghost):
    trained = session("pytorch", create, kit.blobs())

    with pytest.raises(PrivacyRefused, match=message) as caught:
        site.mechanism(ONE_STEP, ghost_clipping=ghost).prepare(trained)

    assert remedy in caught.value.remedy
    assert not site.events()


def test_an_exported_program_is_refused(site, session, kit, tmp_path):
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(mlp(), (torch.zeros(2, 8),), dynamic_shapes=shapes), tmp_path / "mlp.pt2")
    trained = session("pytorch", mlp, kit.blobs(), artefact=tmp_path / "mlp.pt2")

    with pytest.raises(PrivacyRefused, match=r"torch.export program .* has no layers") as caught:
        site.mechanism(ONE_STEP).prepare(trained)

    assert "named architecture" in caught.value.remedy


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"options": {"mixed_precision": "bfloat16"}}, "/builder/mixed_precision"),
        ({"options": {"compile": True}}, "/builder/compile"),
        ({"optimizer": "lbfgs"}, "/optimizer_config/optimizer"),
        ({"scheduler": "reducelronplateau"}, "/scheduler_config"),
    ],
)
def test_options_that_would_tell_of_the_data_are_refused(site, session, kit, fields, path, monkeypatch):
    from locex_torch_builder.forward import Forward

    monkeypatch.setattr(Forward, "compile", lambda *_: None)  # takes a compiler and seconds
    if "optimizer" in fields:
        fields = {"optimizer": kit.optimizer("pytorch", fields["optimizer"])}
    if "scheduler" in fields:
        fields = {"scheduler": kit.scheduler("pytorch", fields["scheduler"])}
    trained = session("pytorch", mlp, kit.blobs(), **fields)

    with pytest.raises(InvalidConfiguration) as caught:
        site.mechanism(ONE_STEP).prepare(trained)

    assert caught.value.errors[0]["path"] == path
