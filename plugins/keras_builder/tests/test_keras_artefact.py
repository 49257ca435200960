from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from locex.errors import InvalidModel, UnknownPlugin
from locex.schemas.job import TrainConfig
from locex_keras_builder.artefact import write_architecture
from locex_keras_builder.kerases import import_keras

CONFIG = TrainConfig(batch_size=16, epochs=2)


MANIFEST = {
    "format": "architecture",
    "library": "keras",
    "architecture": "mlp",
    "config": {"input_size": [8], "hidden": [16], "num_classes": 3},
}


def test_equal_arguments_give_equal_bytes(tmp_path):
    fields = {"architecture": "cnn", "config": {"input_size": [28, 28], "num_classes": 10}}
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        write_architecture(tmp_path / name, **fields, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_an_unknown_architecture_is_named(tmp_path):
    with pytest.raises(UnknownPlugin, match=r"keras\.rnn.*keras\.cnn, keras\.mlp"):
        write_architecture(tmp_path / "m.zip", architecture="rnn", config={})


def test_the_weights_of_the_artefact_are_loaded(mlp, make_session, kit):
    weights = safetensors.numpy.load(kit.entries_of(mlp)["weights.safetensors"])
    parameters = make_session(mlp).get_parameters()
    assert list(parameters) == ["dense1/kernel", "dense1/bias", "output/kernel", "output/bias"]
    for name, array in parameters.items():
        assert np.array_equal(array, weights[name])


@pytest.mark.parametrize("seed", [None, 5])
def test_weights_may_be_left_out(seed, tmp_path, make_session, kit):
    manifest = MANIFEST if seed is None else MANIFEST | {"seed": seed}
    session = make_session(kit.pack(tmp_path / "m.zip", {"manifest.json": json.dumps(manifest)}))
    drawn = kit.architecture("mlp", MANIFEST["config"], seed).get_weights()
    assert np.array_equal(session.get_parameters()["output/kernel"], drawn[-2])
    assert session.signature.input.size == (8,)
    assert session.signature.output.size == (3,)


@pytest.mark.parametrize("nested", [False, True])
def test_a_keras_file_trains_and_comes_back(nested, keras_file, tmp_path, make_session, kit):
    path = kit.pack(tmp_path / "m", {"a/net.keras": keras_file.read_bytes()}) if nested else keras_file
    session = make_session(path)
    assert session.signature.input.dtype == "float32"
    before = session.evaluate(CONFIG).loss
    session.fit(CONFIG, server_round=1)
    assert session.evaluate(CONFIG).loss < before
    (exported,) = session.export(tmp_path / "out", ["safetensors"])
    again = make_session(exported)
    assert list(session.get_parameters()) == list(again.get_parameters())
    for name, array in session.get_parameters().items():
        assert np.array_equal(array, again.get_parameters()[name])
    assert again.evaluate(CONFIG) == session.evaluate(CONFIG)


def test_a_keras_file_of_tf_keras_is_loaded_through_it(tmp_path, make_session):
    keras = import_keras("tf_keras").module
    keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]).save(tmp_path / "m.keras")
    session = make_session(tmp_path / "m.keras")
    before = session.evaluate(CONFIG).loss
    session.fit(CONFIG, server_round=1)
    assert session.evaluate(CONFIG).loss < before


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Harmful()), "a pickle"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x08\x08\x12\x07pytorch", "ONNX"),
        (b"\x1c\0\0\0TFL3", "TFLite"),
        (b"text", "unknown format"),
        (b"", "empty"),
    ],
)
def test_other_formats_are_refused_unread(content, message, tmp_path, make_session):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(InvalidModel, match=message) as caught:
        make_session(tmp_path / "m")
    assert "model.save" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "message"),
    [("scripted_model.pt", "TorchScript"), ("m/data.pkl", "a pickle"), ("weights.pth", "a pickle"), ("a", "no known")],
)
def test_models_of_others_in_archives_are_refused_unread(name, message, tmp_path, make_session, kit):
    with pytest.raises(InvalidModel, match=message):
        make_session(kit.pack(tmp_path / "m.zip", {name: pickle.dumps(Harmful())}))


def test_a_keras_file_with_a_pickle_inside_is_refused(keras_file, tmp_path, make_session, kit):
    entries = kit.entries_of(keras_file)
    weights = entries.pop("model.weights.h5")
    for swapped in ({"model.weights.npz": pickle.dumps(Harmful())}, {"model.weights.h5": weights, "x.pkl": b""}):
        with pytest.raises(InvalidModel, match=r"holds no HDF5 weights|which is no part of one"):
            make_session(kit.pack(tmp_path / "m.keras", entries | swapped))


@pytest.mark.parametrize("length", [0.5, 0.9])
def test_truncated_files_are_refused(length, keras_file, tmp_path, make_session):
    content = keras_file.read_bytes()
    (tmp_path / "m.keras").write_bytes(content[: int(len(content) * length)])
    with pytest.raises(InvalidModel, match="corrupt zip"):
        make_session(tmp_path / "m.keras")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil"])
def test_unsafe_names_are_refused(name, keras_file, tmp_path, make_session, kit):
    with pytest.raises(InvalidModel, match="unsafe entry"):
        make_session(kit.pack(tmp_path / "m.keras", kit.entries_of(keras_file) | {name: b"x"}))


def test_a_bomb_in_a_bomb_is_refused(keras_file, tmp_path, make_session, kit):
    # each of the two archives expands by less than 100, both together by more than 1,000
    inner = kit.pack(tmp_path / "m.keras", kit.entries_of(keras_file) | {"assets/stored": bytes(500_000)})
    with zipfile.ZipFile(inner, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros", bytes(30_000_000))
    assert make_session(inner).signature.output.size == (3,)
    outer = kit.pack(tmp_path / "m.zip", {"m.keras": inner.read_bytes()}, zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidModel, match="compression ratio over 100"):
        make_session(outer)


def test_a_zip_bomb_is_refused(keras_file, tmp_path, make_session, kit):
    entries = kit.entries_of(keras_file) | {"assets/zeros": bytes(30_000_000)}
    with pytest.raises(InvalidModel, match="compression ratio over 100"):
        make_session(kit.pack(tmp_path / "m.keras", entries, zipfile.ZIP_DEFLATED))


def test_weights_must_fit_the_architecture(tmp_path, make_session, kit):
    weights = {
        "dense1/kernel": np.zeros((9, 16), np.float32),
        "dense1/bias": np.zeros(16, np.float32),
        "other": np.zeros(99, np.float32),
    }
    entries = {"manifest.json": json.dumps(MANIFEST), "weights.safetensors": safetensors.numpy.save(weights)}
    with pytest.raises(InvalidModel) as caught:
        make_session(kit.pack(tmp_path / "m.zip", entries))
    for part in ("dense1/kernel has shape [9, 16], not [8, 16]", "output/bias is missing", "other is not of"):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "not JSON"),
        (json.dumps(MANIFEST | {"library": "pytorch"}), "of the library 'pytorch'"),
        (json.dumps(MANIFEST | {"config": {"input_size": [8], "units": 3}}), "unknown key; allowed here are"),
    ],
)
def test_a_wrong_manifest_is_refused(manifest, message, tmp_path, make_session, kit):
    with pytest.raises(InvalidModel, match=message):
        make_session(kit.pack(tmp_path / "m.zip", {"manifest.json": manifest}))


@pytest.mark.parametrize("weights", [b"", b"\xff" * 100])
def test_damaged_weights_are_refused(weights, tmp_path, make_session, kit):
    entries = {"manifest.json": json.dumps(MANIFEST), "weights.safetensors": weights}
    with pytest.raises(InvalidModel, match="corrupt"):
        make_session(kit.pack(tmp_path / "m.zip", entries))


def test_models_of_several_ends_are_refused(tmp_path, make_session):
    keras = import_keras("keras").module
    one, two = keras.Input((8,)), keras.Input((8,))
    keras.Model([one, two], keras.layers.Dense(3)(keras.layers.Add()([one, two]))).save(tmp_path / "m.keras")
    with pytest.raises(InvalidModel, match="2 inputs and 1 outputs"):
        make_session(tmp_path / "m.keras")


def test_a_frozen_model_is_refused(tmp_path, make_session):
    keras = import_keras("keras").module
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    model.trainable = False
    model.save(tmp_path / "m.keras")
    with pytest.raises(InvalidModel, match="no parameters to train"):
        make_session(tmp_path / "m.keras")
