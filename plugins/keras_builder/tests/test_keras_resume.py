from __future__ import annotations

import json
import math

import numpy as np
import pytest
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from locex.errors import LocexError
from locex.schemas.job import TrainConfig

CONFIG = TrainConfig(batch_size=16, epochs=2)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        pytest.param("Adam", {"amsgrad": True}, id="amsgrad"),
        pytest.param("SGD", {"momentum": 0.9}, id="sgd", marks=pytest.mark.slow),
        pytest.param("Nadam", {}, id="nadam", marks=pytest.mark.slow),
        pytest.param("Adam", {"use_ema": True}, id="ema", marks=pytest.mark.slow),
    ],
)
def test_a_restored_training_goes_on_bit_equal(name, fields, either, tmp_path, make_session, kit):
    def session():
        return make_session(
            either,
            optimizer=kit.Optimizers(name, learning_rate=0.01, **fields),
            scheduler=kit.scheduler("reducelronplateau", patience=0, min_delta=0.3, factor=0.5),
        )

    whole = session()
    for server_round in (1, 2):
        whole.fit(CONFIG, server_round=server_round)
        whole.evaluate(CONFIG)
    whole.save_state(tmp_path / "state")
    parameters = whole.get_parameters()
    resumed = session()
    resumed.load_state(tmp_path / "state")
    resumed.set_parameters(parameters)
    for server_round in (3, 4):
        told = [each.fit(CONFIG, server_round=server_round) for each in (whole, resumed)]
        assert told[0] == told[1]
        assert kit.same(whole.get_parameters(), resumed.get_parameters())
    assert float(whole._optimizer.learning_rate) == float(resumed._optimizer.learning_rate) < 0.01


def test_a_state_of_another_kind_is_refused(models, tmp_path, make_session, kit):
    session = make_session(models / "keras.keras", optimizer=kit.Optimizers())
    session.fit(CONFIG, server_round=1)
    session.save_state(tmp_path)
    other = make_session(models / "keras.keras", optimizer=kit.Optimizers("Adam"))
    with pytest.raises(LocexError, match="of SGD, the job has Adam"):
        other.load_state(tmp_path)
    with pytest.raises(LocexError, match="of keras, the job has tf_keras"):
        make_session(models / "tf_keras.keras", optimizer=kit.Optimizers()).load_state(tmp_path)
    with pytest.raises(LocexError, match="of another model or of other fields"):
        make_session(models / "keras.keras", optimizer=kit.Optimizers(momentum=0.9)).load_state(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    with safe_open(path, framework="np") as file:
        content = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a mapping
    content["version"] = "9.1.0"
    safetensors.numpy.save_file(tensors, path, metadata={"state": json.dumps(content)})
    with pytest.raises(LocexError, match=r"locex-keras-builder 9\.1\.0, installed is 1\.") as caught:
        session.load_state(tmp_path)
    assert caught.value.error_code == "state-incompatible"
    path.write_bytes(b"")
    with pytest.raises(SafetensorError):
        session.load_state(tmp_path)


def test_once_stopped_later_rounds_return_the_received_weights(either, tmp_path, make_session, kit):
    def session():
        return make_session(
            either, scheduler=kit.scheduler("earlystopping", monitor="loss", patience=2, min_delta=100.0)
        )

    first = session()
    told = first.fit(TrainConfig(batch_size=16, epochs=9), server_round=1)
    assert math.isfinite(told.metrics["loss"])
    assert first._epochs == 3
    first.save_state(tmp_path)
    second = session()
    second.load_state(tmp_path)
    for each in (first, second):
        received = {name: array + np.float32(0.25) for name, array in each.get_parameters().items()}
        each.set_parameters(received)
        later = each.fit(CONFIG, server_round=2)
        assert kit.same(each.get_parameters(), received)
        assert later.examples == 90
        assert set(later.metrics) == {"loss", "accuracy"}
