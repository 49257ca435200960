from __future__ import annotations

import pytest

from locex.errors import InvalidModel
from locex.schemas.job import TrainConfig
from locex_keras_builder.kerases import import_keras, import_tensorflow, quiet

CONFIG = TrainConfig(batch_size=16)


def saved(model, path):
    with quiet():
        model.save(path)
    return path


@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_lambda_layers_are_refused(name, tmp_path, make_session):
    keras = import_keras(name).module
    model = keras.Sequential([keras.Input((8,)), keras.layers.Lambda(lambda x: x), keras.layers.Dense(3)])
    with pytest.raises(InvalidModel, match="holds a Lambda layer") as caught:
        make_session(saved(model, tmp_path / "m.keras"))
    assert "keras.ops" in caught.value.remedy


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"module": "os", "class_name": "system"}, "names system of 'os', which is no part of Keras' models"),
        ({"module": "keras_hub.layers", "class_name": "Anything"}, "no part of Keras' models"),
        ({"module": "__main__", "class_name": "OwnLayer"}, "no part of Keras' models"),
        ({"module": "keras.utils", "class_name": "get_file"}, "no part of Keras' models"),
        ({"module": "keras.saving", "class_name": "load_model"}, "no part of Keras' models"),
        ({"module": "keras.src.utils.file_utils", "class_name": "get_file"}, "no part of Keras' models"),
        ({"module": "tf_keras.src.saving.saving_api", "class_name": "load_model"}, "no part of Keras' models"),
        ({"module": "keras", "class_name": "layers.Lambda"}, "no part of Keras' models"),
        ({"module": "tf_keras.src.layers", "class_name": "core.TFSMLayer"}, "no part of Keras' models"),
        ({"class_name": "TFSMLayer"}, "loads another program"),
        ({"class_name": "TensorFlowOpLayer"}, "can do more than calculate"),
        ({"class_name": "Lambda"}, "Lambda"),
        ({"class_name": ["Dense"]}, "no part of Keras' models|cannot load"),
        ({"class_name": "Nonsense"}, "cannot load"),
    ],
)
def test_configurations_make_layers_only(fields, message, either, tmp_path, make_session, kit):
    path = kit.changed(either, tmp_path / "m.keras", lambda config: config["config"]["layers"][1].update(fields))
    with pytest.raises(InvalidModel, match=message) as caught:
        make_session(path)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "exec"),
        ("builtins", "print"),
        ("os", "system"),
        ("tf_keras.src.utils.data_utils", "os.system"),
        ("tf_keras.src.layers.serialization", "deserialize_from_json"),
        ("keras.src.layers.layer", "functools.partial"),
    ],
)
def test_functions_are_keras_own(module, name, either, tmp_path, make_session, kit):
    function = {"class_name": "function", "module": module, "config": name, "registered_name": name}
    path = kit.changed(
        either,
        tmp_path / "m.keras",
        lambda config: config["config"]["layers"][1]["config"].update(activation=function),
    )
    with pytest.raises(InvalidModel, match=f"names {name} of '{module}', which is no part of Keras' models"):
        make_session(path)


def test_operations_of_tensorflow_calculate_only(tmp_path, make_session, kit):
    tf, keras = import_tensorflow(), import_keras("tf_keras").module
    given = keras.Input((8,))
    dense = keras.layers.Dense(3)
    harmless = keras.Model(given, dense(tf.nn.relu(tf.math.exp(given) + given)[:, :6]))
    assert make_session(saved(harmless, tmp_path / "m.keras")).fit(CONFIG, server_round=1).examples == 90
    text = kit.entries_of(tmp_path / "m.keras")["config.json"].decode()
    for function in ("io.write_file", "numpy_function", "raw_ops.WriteFile", "mathematics"):
        entries = kit.entries_of(tmp_path / "m.keras") | {"config.json": text.replace("math.exp", function)}
        with pytest.raises(InvalidModel, match=f"calls TensorFlow's '{function}', which can do more than calculate"):
            make_session(kit.pack(tmp_path / "changed.keras", entries))


@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_a_compiled_model_is_taken_whatever_it_was_trained_with(name, tmp_path, make_session, kit):
    def own_loss(y_true, y_pred):
        return keras.losses.categorical_crossentropy(y_true, y_pred)

    keras = import_keras(name).module
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, "relu")])
    inner.compile(optimizer="adam", loss="mse")
    model = keras.Sequential([keras.Input((8,)), inner, keras.layers.Dense(3, "softmax")])
    model.compile(optimizer="adam", loss=own_loss, metrics=["accuracy"])
    data = kit.blobs()
    model.fit(data.x, keras.utils.to_categorical(data.y, 3), verbose=0)
    session = make_session(saved(model, tmp_path / "m.keras"))
    assert kit.same(dict(enumerate(session.get_parameters().values())), dict(enumerate(model.get_weights())))
    session.fit(CONFIG, server_round=1)


def test_a_configuration_reads_no_files(either, tmp_path, make_session, kit):
    lookup = {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}
    path = kit.changed(either, tmp_path / "m.keras", lambda config: config["config"]["layers"].append(lookup))
    with pytest.raises(InvalidModel, match="vocabulary"):
        make_session(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        (" " * (2**24 + 1), "larger than"),
        ('{"a":' * 300 + "1" + "}" * 300, "nested deeper"),
        ("[" * 100_000 + "]" * 100_000, "not JSON|nested deeper"),
        ("[]", "cannot load"),
    ],
)
def test_wrong_configurations_are_refused(content, message, keras_file, tmp_path, make_session, kit):
    entries = kit.entries_of(keras_file) | {"config.json": content}
    with pytest.raises(InvalidModel, match=message):
        make_session(kit.pack(tmp_path / "m.keras", entries))
