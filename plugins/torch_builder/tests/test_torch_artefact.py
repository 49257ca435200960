from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from locex.errors import InvalidModel, UnknownPlugin
from locex.schemas.job import TrainConfig
from locex_torch_builder.artefact import write_architecture
from locex_torch_builder.examples import as_tensor

MANIFEST = {
    "format": "architecture",
    "library": "pytorch",
    "architecture": "mlp",
    "config": {"input_size": [8], "hidden": [16], "num_classes": 3},
}
CONFIG = TrainConfig(batch_size=16, epochs=3)


def pack(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def script(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "net.pt"
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.script(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))).save(str(path))
    return path


# --- named architectures ----------------------------------------------------------------------------------------------


def test_equal_arguments_give_equal_bytes(tmp_path):
    fields = {"architecture": "cnn", "config": {"input_size": [28, 28], "num_classes": 10}}
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        write_architecture(tmp_path / name, **fields, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c
    assert torch.equal(before, torch.get_rng_state())


def test_an_unknown_architecture_is_named(tmp_path):
    with pytest.raises(UnknownPlugin, match=r"pytorch\.rnn.*pytorch\.cnn, pytorch\.mlp"):
        write_architecture(tmp_path / "m.zip", architecture="rnn", config={})


def test_the_weights_of_the_artefact_are_loaded(mlp, make_session):
    with zipfile.ZipFile(mlp) as archive:
        weights = safetensors.torch.load(archive.read("weights.safetensors"))
    parameters = make_session(mlp).get_parameters()
    assert list(parameters) == ["linear1.weight", "linear1.bias", "output.weight", "output.bias"]
    for name, array in parameters.items():
        assert np.array_equal(array, weights[name].numpy())


@pytest.mark.parametrize("seed", [None, 5])
def test_weights_may_be_left_out(seed, tmp_path, make_session, kit):
    manifest = MANIFEST if seed is None else MANIFEST | {"seed": seed}
    session = make_session(pack(tmp_path / "m.zip", {"manifest.json": json.dumps(manifest)}))
    drawn = kit.architecture("mlp", MANIFEST["config"], seed).state_dict()
    assert np.array_equal(session.get_parameters()["output.bias"], drawn["output.bias"].numpy())
    assert session.signature.input.size == (8,)
    assert session.signature.output.size == (3,)


def test_weights_must_fit_the_architecture(tmp_path, make_session):
    weights = {"linear1.weight": torch.zeros(16, 9), "linear1.bias": torch.zeros(16), "other": torch.zeros(1)}
    entries = {"manifest.json": json.dumps(MANIFEST), "weights.safetensors": safetensors.torch.save(weights)}
    with pytest.raises(InvalidModel) as caught:
        make_session(pack(tmp_path / "m.zip", entries))
    for part in ("linear1.weight has shape [16, 9], not [16, 8]", "output.bias is missing", "other is not of"):
        assert part in caught.value.message
    assert "every tensor of the model" in caught.value.remedy


def described(shape, begin, end, dtype="F32"):
    header = json.dumps({"output.bias": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(12)


@pytest.mark.parametrize(
    "weights",
    [
        described([10**9], 0, 4 * 10**9),
        described([3], 0, 4 * 10**9),
        described([3], 4, 16),
        described([2**62, 2**62], 0, 12),
        described([3], 12, 0),
        described([3], 0, 12, "O"),
        (2**63).to_bytes(8, "little") + b"{}",
        (10**8).to_bytes(8, "little") + b"{}",
        b"",
        b"\x80\x04.",
    ],
    ids=["shape", "end", "begin", "overflow", "backwards", "type", "header", "long header", "empty", "pickle"],
)
def test_weights_that_lie_about_themselves_are_refused(weights, tmp_path, make_session):
    entries = {"manifest.json": json.dumps(MANIFEST), "weights.safetensors": weights}
    with pytest.raises(InvalidModel, match=r"weights\.safetensors is corrupt"):
        make_session(pack(tmp_path / "m.zip", entries))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"input_size": [8], "hidden": [10**9] * 2, "num_classes": 3}, r"needs [\d,]+ MiB of memory, there are"),
        ({"input_size": [10**6] * 3, "hidden": [10**9], "num_classes": 3}, "sizes are absurd"),
        ({"input_size": [8], "hidden": [10**40], "num_classes": 3}, "sizes are absurd"),
        ({"input_size": [8], "units": 3}, "unknown key; allowed here are"),
    ],
)
def test_an_absurd_architecture_is_refused_before_it_is_made(config, message, tmp_path, make_session):
    manifest = json.dumps(MANIFEST | {"config": config})
    with pytest.raises(InvalidModel, match=message):
        make_session(pack(tmp_path / "m.zip", {"manifest.json": manifest}))


# --- TorchScript ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", ["", "scripted_model.pt", "a/b/scripted_model.pt"])
def test_torchscript_is_known_by_its_content(script, nested, tmp_path, make_session):
    path = pack(tmp_path / "m.zip", {nested: script.read_bytes()}) if nested else script.rename(tmp_path / "m.bin")
    session = make_session(path)
    assert session.signature.input is None
    before = session.evaluate(CONFIG).loss
    session.fit(CONFIG, server_round=1)
    assert session.evaluate(CONFIG).loss < before
    (exported,) = session.export(tmp_path / "out", ["safetensors"])
    again = make_session(exported)
    for name, array in session.get_parameters().items():
        assert np.array_equal(array, again.get_parameters()[name])


def test_a_program_in_a_zip_does_not_expand_twice(script, tmp_path, make_session):
    inner = io.BytesIO(script.read_bytes())
    with zipfile.ZipFile(inner, "a") as bomb:
        bomb.writestr("deflated", bytes(5_000_000), zipfile.ZIP_DEFLATED)
        bomb.writestr("stored", bytes(100_000))  # hides the ratio of the first, and becomes nothing in the outer zip
    with zipfile.ZipFile(tmp_path / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scripted_model.pt", inner.getvalue())
    with pytest.raises(InvalidModel, match="compression ratio"):
        make_session(tmp_path / "m.zip")


@pytest.mark.parametrize("nested", [False, True])
def test_the_operator_may_refuse_programs(script, nested, tmp_path, make_session, mlp):
    path = pack(tmp_path / "m.zip", {"scripted_model.pt": script.read_bytes()}) if nested else script
    with pytest.raises(InvalidModel, match=r"a program \(TorchScript\)") as caught:
        make_session(path, allow_programs=False)
    assert caught.value.error_code == "program-refused"
    make_session(mlp, allow_programs=False)


def test_a_damaged_program_is_refused(script, make_session):
    with zipfile.ZipFile(script) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries = {name: b"no code" if name.endswith(".py") else content for name, content in entries.items()}
    with pytest.raises(InvalidModel, match="TorchScript"):
        make_session(pack(script, entries))


class Greedy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x):
        return self.linear(x) + torch.zeros([100000, 100000, 100000]).sum()


def test_a_program_that_wants_more_memory_than_there_is_is_no_wrong_model(tmp_path, make_session):
    path = tmp_path / "m.pt"
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.script(Greedy()).save(str(path))
    with pytest.raises(MemoryError, match="can't allocate memory"):
        make_session(path)


# --- what is no model of PyTorch --------------------------------------------------------------------------------------


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(Harmful()), saved(Harmful()), saved({"weight": torch.zeros(2)})],
    ids=["pickle", "torch.save", "state dict"],
)
@pytest.mark.parametrize("nested", ["", "scripted_model.pt", "folder/model.pkl"])
def test_pickles_are_refused_unread(content, nested, tmp_path, make_session):
    path = tmp_path / "m.pt"
    if nested:
        pack(path, {nested: content})
    else:
        path.write_bytes(content)
    with pytest.raises(InvalidModel, match="is a pickle") as caught:
        make_session(path)
    assert "torch.jit.script" in caught.value.remedy


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ({"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": b"\x89HDF"}, r"a Keras model \(\.keras\)"),
        ({"m/saved_model.pb": b"", "m/variables/variables.index": b""}, "a TensorFlow SavedModel"),
        ({"readme.txt": b""}, "a zip archive that holds no known model"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), r"an HDF5 file \(\.h5\)"),
        (b"\x08\x0a\x12\x07pytorch\x1a\x03", "an ONNX model"),
        (safetensors.torch.save({"a": torch.zeros(1)}), "bare safetensors weights"),
        (b"hello", "of an unknown format"),
        (b"", "empty"),
    ],
)
def test_the_artefacts_of_others_are_named(entries, name, tmp_path, make_session):
    path = tmp_path / "m"
    if isinstance(entries, dict):
        pack(path, entries)
    else:
        path.write_bytes(entries)
    with pytest.raises(InvalidModel, match=f"the artefact is {name}") as caught:
        make_session(path)
    assert "torch.export.save" in caught.value.remedy


def test_the_manifest_of_another_library_is_refused(tmp_path, make_session):
    manifest = json.dumps(MANIFEST | {"library": "keras"})
    with pytest.raises(InvalidModel, match="of the library 'keras', its metadata says 'pytorch'") as caught:
        make_session(pack(tmp_path / "m.zip", {"manifest.json": manifest}))
    assert "meta.library" in caught.value.remedy


@pytest.mark.parametrize("kind", ["mlp", "script"])
@pytest.mark.parametrize("percent", range(0, 100, 10))
def test_truncated_artefacts_are_refused(kind, percent, request, make_session):
    path = request.getfixturevalue(kind)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * percent // 100])
    with pytest.raises(InvalidModel, match=r"corrupt zip|is empty"):
        make_session(path)


def test_data_is_shared_where_it_can_be():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = as_tensor(array)
    array[0, 0] = 9
    assert tensor[0, 0] == 9
    array.setflags(write=False)
    assert as_tensor(array).data_ptr() == tensor.data_ptr()
    assert as_tensor(np.zeros(2)).dtype == torch.float32
    assert as_tensor(np.float64(3.0) * np.ones(())).shape == ()
    assert as_tensor(array[:, ::-1]).tolist() == array[:, ::-1].tolist()
