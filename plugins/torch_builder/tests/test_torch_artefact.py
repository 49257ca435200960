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
from locex_torch_builder.artefact import write_architecture
from locex_torch_builder.batches import as_tensor

MANIFEST = {
    "format": "architecture",
    "library": "pytorch",
    "architecture": "mlp",
    "config": {"input_size": [8], "hidden": [16], "num_classes": 3},
}


def pack(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def script(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))).save(str(path))
    return path


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


@pytest.mark.parametrize("nested", ["", "scripted_model.pt", "a/b/scripted_model.pt"])
def test_torchscript_is_known_by_its_content(script, nested, tmp_path, make_session):
    path = pack(tmp_path / "m.zip", {nested: script.read_bytes()}) if nested else script.rename(tmp_path / "m.bin")
    session = make_session(path)
    assert session.signature.input is None
    before = session.evaluate(session_config()).loss
    session.fit(session_config(epochs=3), server_round=1)
    assert session.evaluate(session_config()).loss < before
    (exported,) = session.export(tmp_path / "out", ["safetensors"])
    again = make_session(exported)
    for name, array in session.get_parameters().items():
        assert np.array_equal(array, again.get_parameters()[name])


def session_config(**fields):
    from locex.schemas.job import TrainConfig

    return TrainConfig(batch_size=16, **fields)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Harmful()),
        saved(Harmful()),
        saved({"weight": torch.zeros(2)}),
    ],
    ids=["pickle", "torch.save", "state dict"],
)
@pytest.mark.parametrize("nested", [False, True])
def test_pickles_are_refused_unread(content, nested, tmp_path, make_session):
    path = tmp_path / "m.pt"
    if nested:
        pack(path, {"scripted_model.pt": content})
    else:
        path.write_bytes(content)
    with pytest.raises(InvalidModel, match="is a pickle") as caught:
        make_session(path)
    assert "torch.jit.script" in caught.value.remedy


def test_a_corrupt_archive_is_refused(mlp, make_session):
    content = bytearray(mlp.read_bytes())
    mlp.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidModel, match="corrupt zip"):
        make_session(mlp)


def test_a_damaged_entry_is_refused(mlp, make_session):
    content = bytearray(mlp.read_bytes())
    content[len(content) // 2] ^= 0xFF
    mlp.write_bytes(content)
    with pytest.raises(InvalidModel, match="cannot be read: Bad CRC-32"):
        make_session(mlp)


def test_a_damaged_program_is_refused(script, make_session):
    with zipfile.ZipFile(script) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries = {name: b"no code" if name.endswith(".py") else content for name, content in entries.items()}
    with pytest.raises(InvalidModel, match="TorchScript"):
        make_session(pack(script, entries))


def test_a_zip_bomb_is_refused(tmp_path, make_session):
    entries = {"manifest.json": json.dumps(MANIFEST), "weights.safetensors": bytes(10_000_000)}
    with pytest.raises(InvalidModel, match="compression ratio over 100"):
        make_session(pack(tmp_path / "m.zip", entries, zipfile.ZIP_DEFLATED))


def test_too_many_entries_are_refused(tmp_path, make_session):
    with pytest.raises(InvalidModel, match="10001 entries"):
        make_session(pack(tmp_path / "m.zip", {f"{n}": b"" for n in range(10_001)}))


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:/evil"])
def test_unsafe_names_are_refused(name, tmp_path, make_session):
    path = pack(tmp_path / "m.zip", {"manifest.json": json.dumps(MANIFEST), name: b"x"})
    with pytest.raises(InvalidModel, match="unsafe entry"):
        make_session(path)


def test_links_are_refused(tmp_path, make_session):
    link = zipfile.ZipInfo("weights.safetensors")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InvalidModel, match="unsafe entry"):
        make_session(tmp_path / "m.zip")


def test_weights_must_fit_the_architecture(tmp_path, make_session):
    weights = {"linear1.weight": torch.zeros(16, 9), "linear1.bias": torch.zeros(16), "other": torch.zeros(1)}
    entries = {"manifest.json": json.dumps(MANIFEST), "weights.safetensors": safetensors.torch.save(weights)}
    with pytest.raises(InvalidModel) as caught:
        make_session(pack(tmp_path / "m.zip", entries))
    for part in ("linear1.weight has shape [16, 9], not [16, 8]", "output.bias is missing", "other is not of"):
        assert part in caught.value.message
    assert "state_dict" in caught.value.remedy


def test_declared_shapes_must_agree_with_the_size(tmp_path, make_session):
    header = json.dumps({"output.bias": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(12)
    entries = {"manifest.json": json.dumps(MANIFEST), "weights.safetensors": weights}
    with pytest.raises(InvalidModel, match="corrupt"):
        make_session(pack(tmp_path / "m.zip", entries))


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "not JSON"),
        (json.dumps(MANIFEST | {"library": "keras"}), "/library"),
        (json.dumps(MANIFEST | {"config": {"input_size": [8], "units": 3}}), "unknown key; allowed here are"),
        (" " * 2**20 + "{}", "larger than"),
    ],
)
def test_a_wrong_manifest_is_refused(manifest, message, tmp_path, make_session):
    with pytest.raises(InvalidModel, match=message):
        make_session(pack(tmp_path / "m.zip", {"manifest.json": manifest}))


@pytest.mark.parametrize("content", [b"\x89HDF", b""])
def test_an_unknown_format_is_refused(content, tmp_path, make_session):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(InvalidModel, match="unknown format"):
        make_session(tmp_path / "m")


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
