from __future__ import annotations

import pytest

from locex.errors import InvalidModel
from locex.schemas.job import TrainConfig
from locex_keras_builder.kerases import import_keras, quiet

CONFIG = TrainConfig(batch_size=16, epochs=2)


@pytest.mark.parametrize("root", [pytest.param("", marks=pytest.mark.slow), "md_keras/1/"])
def test_a_saved_model_is_trained_and_comes_back(root, saved_folder, tmp_path, make_session, kit):
    session = make_session(kit.zipped(saved_folder, tmp_path / "m.zip", root))
    before = session.evaluate(CONFIG).loss
    session.fit(CONFIG, server_round=1)
    assert session.evaluate(CONFIG).loss < before
    (exported,) = session.export(tmp_path / "out", ["safetensors"])
    again = make_session(exported)
    assert again.evaluate(CONFIG) == session.evaluate(CONFIG)
    again.fit(CONFIG, server_round=2)


def test_a_compiled_saved_model_is_taken_whatever_it_was_trained_with(tmp_path, make_session, kit):
    def own_loss(y_true, y_pred):
        return keras.losses.categorical_crossentropy(y_true, y_pred)

    keras = import_keras("tf_keras").module
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, "softmax")])
    model.compile(optimizer="adam", loss=own_loss, metrics=["accuracy", keras.metrics.Precision()])
    data = kit.blobs()
    with quiet():
        model.fit(data.x, keras.utils.to_categorical(data.y, 3), verbose=0)
        model.save(tmp_path / "saved")
    session = make_session(kit.zipped(tmp_path / "saved", tmp_path / "m.zip"))
    assert kit.same(dict(enumerate(session.get_parameters().values())), dict(enumerate(model.get_weights())))
    assert session.fit(CONFIG, server_round=1).examples == 90


def test_names_that_are_files_and_folders_are_refused(saved_folder, tmp_path, make_session, kit):
    entries = kit.entries_of(kit.zipped(saved_folder, tmp_path / "m.zip"))
    with pytest.raises(InvalidModel, match="SavedModel"):
        make_session(kit.pack(tmp_path / "m.zip", {"saved_model.pb/x": b""} | entries))


def test_sites_may_refuse_saved_models(saved_folder, tmp_path, make_session, kit):
    with pytest.raises(InvalidModel, match="LOCEX_ALLOW_PROGRAMS") as caught:
        make_session(kit.zipped(saved_folder, tmp_path / "m.zip"), allow_programs=False)
    assert caught.value.error_code == "program-refused"
    assert ".keras" in caught.value.remedy


def test_a_saved_model_without_keras_cannot_be_trained(saved_folder, tmp_path, make_session, kit):
    entries = kit.entries_of(kit.zipped(saved_folder, tmp_path / "m.zip"))
    del entries["keras_metadata.pb"]
    with pytest.raises(InvalidModel, match="can be run, but not trained") as caught:
        make_session(kit.pack(tmp_path / "m.zip", entries))
    assert ".keras" in caught.value.remedy


def test_two_saved_models_are_refused(saved_folder, tmp_path, make_session, kit):
    entries = kit.entries_of(kit.zipped(saved_folder, tmp_path / "m.zip"))
    both = {f"{root}/{name}": content for root in "ab" for name, content in entries.items()}
    with pytest.raises(InvalidModel, match="holds 2 SavedModels"):
        make_session(kit.pack(tmp_path / "m.zip", both))


def test_a_truncated_saved_model_is_refused(saved_folder, tmp_path, make_session, kit):
    entries = kit.entries_of(kit.zipped(saved_folder, tmp_path / "m.zip"))
    for name in ("variables/variables.data-00000-of-00001", "saved_model.pb", "keras_metadata.pb"):
        cut = entries | {name: entries[name][: len(entries[name]) // 2]}
        with pytest.raises(InvalidModel, match="SavedModel"):
            make_session(kit.pack(tmp_path / "m.zip", cut))


def test_lambda_layers_of_saved_models_are_refused(tmp_path, make_session, kit):

    keras = import_keras("tf_keras").module
    with quiet():
        keras.Sequential([keras.Input((8,)), keras.layers.Lambda(lambda x: x), keras.layers.Dense(3)]).save(
            tmp_path / "saved"
        )
    with pytest.raises(InvalidModel, match="holds a Lambda layer"):
        make_session(kit.zipped(tmp_path / "saved", tmp_path / "m.zip"))
