"""torch.export archives: trained and evaluated as their models would be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from locex.api import Dataset, TensorSpec
from locex.errors import InvalidModel
from locex.schemas.job import TrainConfig
from locex_torch_builder.artefact import load_model, write_architecture
from locex_torch_builder.forward import Forward

CONFIG = TrainConfig(batch_size=16, epochs=2)
CNN = {"input_size": [8, 8], "num_classes": 3, "channels": [4], "batch_norm": True, "dropout": 0.3}


@pytest.fixture
def warned():
    return []


def same(left, right):
    return list(left) == list(right) and all(np.array_equal(left[name], right[name]) for name in left)


def test_a_program_trains_as_its_model_does_and_is_written_again(tmp_path, make_session, kit, warned):
    """Dropout and batch normalization too: they act in training, not in evaluation."""
    write_architecture(tmp_path / "m.zip", architecture="cnn", config=CNN, seed=3)
    module = kit.architecture("cnn", CNN, 3).train()
    kit.export(module, tmp_path / "m.pt2", torch.zeros(2, 8, 8))
    data = {"train": kit.blobs(size=(8, 8)), "test": kit.blobs(size=(8, 8), examples=40, seed=5)}
    by_name = make_session(tmp_path / "m.zip", **data)
    exported = make_session(tmp_path / "m.pt2", warn=warned.append, **data)
    assert exported.signature == by_name.signature
    assert same(exported.get_parameters(), by_name.get_parameters())
    for server_round in (1, 2):
        assert exported.fit(CONFIG, server_round=server_round) == by_name.fit(CONFIG, server_round=server_round)
        assert exported.evaluate(CONFIG) == by_name.evaluate(CONFIG)
        assert same(exported.get_parameters(), by_name.get_parameters())
    assert exported.get_parameters()["norm1.num_batches_tracked"] == 24
    assert warned == []

    (path,) = exported.export(tmp_path / "out", ["safetensors", "pt2"])
    again = make_session(path, **data)
    assert same(again.get_parameters(), exported.get_parameters())
    assert again.evaluate(CONFIG) == exported.evaluate(CONFIG)
    assert make_session(path, **data).fit(CONFIG, server_round=3) == again.fit(CONFIG, server_round=3)


def test_a_program_exported_for_evaluation_trains_so_and_says_so(tmp_path, make_session, kit, warned):
    kit.export(kit.architecture("cnn", CNN, 3).eval(), tmp_path / "m.pt2", torch.zeros(2, 8, 8))
    data = kit.blobs(size=(8, 8))
    session = make_session(tmp_path / "m.pt2", warn=warned.append, train=data, test=data)
    before = session.get_parameters()
    session.fit(CONFIG, server_round=1)
    after = session.get_parameters()
    assert np.array_equal(before["norm1.running_mean"], after["norm1.running_mean"])
    assert not np.array_equal(before["output.weight"], after["output.weight"])
    (warning,) = warned
    assert "evaluation mode" in warning


class Pooled(nn.Module):
    """Sizes in its graph are expressions of the batch's."""

    def __init__(self):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(50, 8), nn.LSTM(8, 8, batch_first=True, dropout=0.1, num_layers=2)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.output = nn.Linear(16, 3)

    def forward(self, x):
        hidden, _ = self.lstm(self.embedding(x))
        hidden, _ = self.attention(hidden, hidden, hidden, need_weights=False)
        return self.output(hidden.reshape(x.shape[0] * 2, -1).reshape(-1, 2, 24).mean(1)[:, :16])


def test_recurrent_and_attending_models_train(tmp_path, make_session, kit):
    torch.manual_seed(0)
    path = kit.export(Pooled(), tmp_path / "m.pt2", torch.zeros(2, 6, dtype=torch.int64))
    random = np.random.default_rng(0)
    data = Dataset(random.integers(0, 50, (64, 6)), random.integers(0, 3, 64))
    session = make_session(path, train=data, test=data)
    assert session.signature.input == TensorSpec((6,), "int64")
    before = session.evaluate(CONFIG)
    assert session.evaluate(CONFIG) == before
    session.fit(TrainConfig(batch_size=16, epochs=5), server_round=1)
    assert session.evaluate(CONFIG).loss < before.loss


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        lambda: nn.InstanceNorm2d(4),
        lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    ],
    ids=["batch", "instance", "tracked instance"],
)
def test_normalizations_are_evaluated_as_the_model_does(norm, tmp_path, make_session, kit):
    """With averages where they keep any, else as in training."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), norm(), nn.Flatten(), nn.Linear(64, 3))
    data = kit.blobs(size=(2, 6, 6))
    session = make_session(kit.export(model, tmp_path / "m.pt2", torch.zeros(2, 2, 6, 6)), train=data, test=data)
    session.fit(CONFIG, server_round=1)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in session.get_parameters().items()})
    with torch.no_grad():
        outputs = [model.eval()(torch.from_numpy(part)) for part in np.split(data.x, range(16, 90, 16))]
    expected = nn.functional.cross_entropy(torch.cat(outputs), torch.from_numpy(data.y))
    assert session.evaluate(CONFIG).loss == pytest.approx(float(expected), rel=1e-4)


class Constant(nn.Module):
    """Has tensors that are no parameters, and makes some on the device that it was exported on."""

    def __init__(self):
        super().__init__()
        self.linear, self.scale = nn.Linear(8, 3), torch.arange(3.0)
        self.register_buffer("shift", torch.ones(3), persistent=False)

    def forward(self, x):
        made = torch.zeros(x.shape[0], 3, device=x.device) + torch.tensor([1.0, 2.0, 3.0])
        return self.linear(x) * self.scale + self.shift + made.to(x.device)


@pytest.mark.parametrize("model", [Constant, lambda: nn.Sequential(nn.Linear(8, 3), nn.Dropout())])
def test_all_of_a_program_goes_to_the_device(model, tmp_path, make_context, kit):
    """The device without memory refuses tensors of any other, as a GPU does."""
    loaded = load_model(make_context(kit.export(model(), tmp_path / "m.pt2")))
    forward = Forward(loaded, torch.device("meta"), None)
    for training in (True, False):
        forward.train(training)
        assert forward(torch.zeros(5, 8, device="meta")).device.type == "meta"


class Two(nn.Module):
    def __init__(self, outputs=1):
        super().__init__()
        self.linear, self.outputs = nn.Linear(8, 3), outputs

    def forward(self, x, y=None):
        found = self.linear(x if y is None else x + y)
        return found if self.outputs == 1 else (found, found)


def test_a_program_for_one_size_of_batches_is_refused_with_the_remedy(tmp_path, make_session, kit):
    with pytest.raises(InvalidModel, match="exported for batches of 2 only") as caught:
        make_session(kit.export(Two(), tmp_path / "m.pt2", dynamic=False))
    assert 'dynamic_shapes=({0: torch.export.Dim("batch")},)' in caught.value.remedy


def test_programs_of_several_tensors_are_refused(tmp_path, make_session, kit):
    with pytest.raises(InvalidModel, match="one tensor"):
        make_session(kit.export(Two(outputs=2), tmp_path / "a.pt2"))
    example = torch.zeros(2, 8)
    torch.export.save(torch.export.export(Two(), (example, example)), tmp_path / "b.pt2")
    with pytest.raises(InvalidModel, match="one tensor"):
        make_session(tmp_path / "b.pt2")
