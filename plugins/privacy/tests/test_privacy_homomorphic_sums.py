"""Homomorphic encryption: the sum equals FedAvg, nobody without the secret reads it, and nothing wraps in silence."""

import subprocess
import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from locex.api import Contribution, OpaqueAggregation, PrivacyContext, Stage, Update
from locex.errors import BadParameters, PrivacyRefused
from locex.plugins.catalog import read_catalog
from locex.plugins.host import Host

pytest.importorskip("locex_privacy.homomorphic.ckks", reason="the extra [homomorphic] is not installed")

MODEL = {
    "a": np.zeros((60, 50), np.float32),
    "norm.batches": np.array(7, np.int64),
    "mask": np.array([True, False]),
    "half": np.zeros(3, np.float16),
    "b": np.zeros((), np.float64),
}
CONTEXT = PrivacyContext("data", lambda unit: None, lambda unit, epsilon: None)


@pytest.fixture(scope="module")
def key_folder(tmp_path_factory):
    """Keys ``fed`` and ``other``."""
    from locex_privacy.homomorphic.commands import keys

    folder = tmp_path_factory.mktemp("keys")
    for name in ("fed", "other"):
        assert CliRunner().invoke(keys, ["new", name, "--folder", str(folder)]).exit_code == 0
    return folder


@pytest.fixture(autouse=True)
def mounted_keys(key_folder, monkeypatch):
    monkeypatch.setenv("HM_SECRET_FILE", str(key_folder))
    monkeypatch.setenv("HM_PUBLIC_FILE", str(key_folder))


def half(kind, **config):
    host = Host()
    plugin = host.configure(host.load(read_catalog().find(kind, "homomorphic")), {"key": "fed", **config})
    return host.privacy(plugin, CONTEXT) if kind == "privacy" else host.aggregation(plugin)


def node(model=MODEL, **config):
    made = half("privacy", **config)
    made.requires("flower-grpc")
    made.prepare(types.SimpleNamespace(get_parameters=lambda: model))
    return made


def told(aggregation, clients):
    return {**aggregation.configure(1), "fit_clients": clients, "server_round": 1}


def sent(mechanism, parameters, examples, config):
    mechanism.before_fit(config)
    update = mechanism.outgoing(Update(parameters, MODEL, examples, {"loss": 1.0}), config)
    return Contribution(list(update.parameters.values()), update.examples, update.metrics)


def drawn(seed, scale=1.0):
    generator = np.random.default_rng(seed)
    return {
        name: (generator.normal(size=tensor.shape) * scale).astype(tensor.dtype)
        if tensor.dtype.kind == "f"
        else tensor + tensor.dtype.type(1)
        for name, tensor in MODEL.items()
    }


def summed(aggregation, contributions, current=None):
    current = list(MODEL.values()) if current is None else current
    assert [aggregation.fault_of(one, current) for one in contributions] == [""] * len(contributions)
    return aggregation.aggregate(1, current, contributions)


@pytest.mark.parametrize("examples", [(500, 300, 700), (1, 1, 1)])
def test_the_average_is_that_of_fedavg(examples):
    aggregation = half("aggregation")
    assert isinstance(aggregation, OpaqueAggregation)
    assert node().stage is Stage.ENCRYPT
    trained = [drawn(seed) for seed in range(3)]
    config = told(aggregation, 3)
    parts = [sent(node(), one, n, config) for one, n in zip(trained, examples, strict=True)]
    assert {array.dtype.name for part in parts for array in part.parameters} == {"uint8"}
    arrived = node().incoming(summed(aggregation, parts), {})
    assert list(arrived) == list(MODEL)
    for name, tensor in MODEL.items():
        if tensor.dtype.kind == "f":
            weighted = sum(n * one[name].astype(np.float64) for one, n in zip(trained, examples, strict=True))
            np.testing.assert_allclose(arrived[name], weighted / sum(examples), rtol=0, atol=1e-6)
            assert arrived[name].shape == tensor.shape
        else:  # integers and booleans are not sent
            np.testing.assert_array_equal(arrived[name], tensor)


@given(
    st.lists(st.tuples(st.integers(1, 2000), st.floats(-100, 100, width=32)), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=15, deadline=None)
def test_every_sum_within_the_bound_is_that_of_fedavg(parts, seed):
    aggregation, mechanism = half("aggregation"), node()
    config = told(aggregation, len(parts))
    generator = np.random.default_rng(seed)
    vectors = [generator.uniform(-1, 1, (60, 50)).astype(np.float32) * np.float32(peak) for _, peak in parts]
    contributions = [
        sent(mechanism, MODEL | {"a": vector}, n, config) for vector, (n, _) in zip(vectors, parts, strict=True)
    ]
    arrived = mechanism.incoming(summed(aggregation, contributions), {})["a"]
    expected = sum(n * one.astype(np.float64) for one, (n, _) in zip(vectors, parts, strict=True))
    np.testing.assert_allclose(arrived, expected / sum(n for n, _ in parts), rtol=0, atol=1e-6)


def test_the_older_parameters_are_as_good(tmp_path, monkeypatch):
    from locex_privacy.homomorphic.commands import keys

    chosen = ["--poly-modulus-degree", "8192", "--coeff-mod-bit-sizes", "60,40,40", "--scale-bits", "40"]
    CliRunner().invoke(keys, ["new", "old", "--folder", str(tmp_path), *chosen])
    monkeypatch.setenv("HM_SECRET_FILE", str(tmp_path / "old.secret"))
    monkeypatch.setenv("HM_PUBLIC_FILE", str(tmp_path / "old.public"))
    older = {"poly_modulus_degree": 8192, "coeff_mod_bit_sizes": [60, 40, 40], "scale_bits": 40, "scheme": "CKKS"}
    aggregation, mechanism = half("aggregation", key="old", **older), node(key="old", **older)
    parts = [sent(mechanism, drawn(seed), 1, told(aggregation, 2)) for seed in range(2)]
    arrived = mechanism.incoming(summed(aggregation, parts), {})["a"]
    np.testing.assert_allclose(arrived, (drawn(0)["a"].astype(float) + drawn(1)["a"]) / 2, rtol=0, atol=2e-9)


def test_what_could_wrap_is_refused_and_what_just_fits_is_right():
    aggregation, mechanism = half("aggregation"), node()
    config = told(aggregation, 3)
    just = 2.0**22 / 3 / 1000 * 0.999
    fits = [sent(mechanism, MODEL | {"a": np.full((60, 50), sign * just)}, 1000, config) for sign in (1, 1, 1)]
    arrived = mechanism.incoming(summed(aggregation, fits), {})["a"]
    np.testing.assert_allclose(arrived, just, rtol=1e-9)
    with pytest.raises(BadParameters, match=r"could wrap: .* less than 4\.1.*it is 1398·1000·3") as found:
        sent(mechanism, MODEL | {"a": np.full((60, 50), just / 0.999)}, 1000, config)
    assert "1398" not in found.value.message  # which the server is told, and which must not read weights
    with pytest.raises(BadParameters, match="could wrap"):
        sent(mechanism, MODEL | {"a": np.full((60, 50), np.inf)}, 1, config)


def test_a_node_with_the_wrong_key_is_told_so_before_it_trains():
    aggregation, stranger = half("aggregation"), node(key="other")
    with pytest.raises(PrivacyRefused, match=r"wrong key: its own is [0-9a-f]{32}, the federation's is [0-9a-f]{32}"):
        stranger.before_fit(told(aggregation, 2))
    part = sent(stranger, drawn(1), 5, told(half("aggregation", key="other"), 1))
    assert "is encrypted with key" in aggregation.fault_of(part, list(MODEL.values()))
    with pytest.raises(PrivacyRefused, match=r"wrong key.*what arrived is of"):
        stranger.incoming(sent(node(), drawn(1), 5, told(aggregation, 1)).parameters, {})


def test_nothing_is_trained_for_a_server_that_does_not_add_ciphertexts():
    with pytest.raises(PrivacyRefused, match="does not say that it adds ciphertexts"):
        node().before_fit({"server_round": 1})
    with pytest.raises(PrivacyRefused, match="how many nodes"):
        sent(node(), drawn(1), 5, half("aggregation").configure(1))


def test_the_first_parameters_pass_in_clear():
    mechanism, named, listed = node(), drawn(3), list(drawn(3).values())
    assert mechanism.incoming(named, {}) is named
    assert mechanism.incoming(listed, {}) is listed


def test_the_collector_cannot_decrypt(key_folder, monkeypatch):
    """With all that it has: its key file, TenSEAL, the contributions, their sum, and what nodes told."""
    import tenseal

    from locex_privacy.homomorphic.keys import read_key
    from locex_privacy.homomorphic.payload import ciphertexts_of

    aggregation = half("aggregation")
    parts = [sent(node(), drawn(seed), 10, told(aggregation, 2)) for seed in range(2)]
    key = read_key(key_folder / "fed.public", "HM_PUBLIC_FILE")
    context = tenseal.context_from(key.content)
    assert not context.is_private()
    assert not context.has_secret_key()
    for arrays in (parts[0].parameters, summed(aggregation, parts)):
        for ciphertext in ciphertexts_of(arrays[1]):
            vector = tenseal.ckks_vector_from(context, ciphertext)
            with pytest.raises(ValueError, match="secret_key"):
                vector.decrypt()
    # No encoding of the model is anywhere in what it holds.
    assert drawn(0)["a"].tobytes()[:8] not in b"".join(array.tobytes() for array in parts[0].parameters)
    # A secret of its own making reads noise.
    monkeypatch.setenv("HM_SECRET_FILE", str(key_folder))
    guess = tenseal.context_from(read_key(key_folder / "other.secret", "HM_SECRET_FILE").content)
    (first, *_) = ciphertexts_of(parts[0].parameters[1])
    read = np.array(tenseal.ckks_vector_from(guess, first).decrypt())[:50]
    assert np.abs(read - 10 * drawn(0)["a"][0]).min() > 1000


def test_the_same_update_is_never_encrypted_alike():
    config = told(half("aggregation"), 1)
    first, second = (sent(node(), drawn(1), 5, config).parameters for _ in range(2))
    assert first[1].tobytes() != second[1].tobytes()


def test_a_collector_that_holds_a_secret_does_not_start(key_folder, monkeypatch):
    monkeypatch.setenv("HM_PUBLIC_FILE", str(key_folder / "fed.secret"))
    with pytest.raises(PrivacyRefused, match=r"holds the secret of key [0-9a-f]{32}: a collector must not have it"):
        half("aggregation")


def broken(part, change):
    arrays = [array.copy() for array in part.parameters]
    return Contribution(change(arrays), part.examples, part.metrics)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda arrays: arrays[1:], "not encrypted"),
        (lambda arrays: [], "not encrypted"),
        (lambda arrays: [np.zeros((60, 50), np.float32)], "not encrypted"),
        (lambda arrays: [arrays[0][:40], *arrays[1:]], "header of its ciphertexts cannot be read"),
        (lambda arrays: [np.array(7, np.uint8), *arrays[1:]], "not encrypted"),
        (lambda arrays: arrays[:1], "blocks have [] ciphertexts, not [2]"),
        (lambda arrays: [*arrays, arrays[1]], "blocks have [2, 2] ciphertexts, not [2]"),
        (lambda arrays: [arrays[0], *np.split(arrays[1], [len(arrays[1]) // 2])], "torn"),
        (lambda arrays: [arrays[0], arrays[1][:-1]], "torn"),
        (lambda arrays: [arrays[0], arrays[1][:3]], "torn"),
        (lambda arrays: [arrays[0], arrays[1].astype(np.float32)], "no array of bytes"),
        (lambda arrays: [arrays[0], np.frombuffer(b"\4\0\0\0oops", np.uint8)], "cannot be read"),
    ],
)
def test_contributions_that_cannot_be_added_are_told_apart(change, fault):
    aggregation = half("aggregation")
    part = sent(node(), drawn(1), 5, told(aggregation, 1))
    assert fault in aggregation.fault_of(broken(part, change), list(MODEL.values()))


def test_ciphertexts_of_another_scale_cost_their_node_only(key_folder):
    import tenseal

    from locex_privacy.homomorphic.keys import read_key

    context = tenseal.context_from(read_key(key_folder / "fed.secret", "HM_SECRET_FILE").content)
    aggregation = half("aggregation")
    part = sent(node(), drawn(1), 5, told(aggregation, 1))
    for vector, fault in (
        (tenseal.ckks_vector(context, np.ones(2048), scale=2**20), "another scale"),
        (tenseal.ckks_vector(context, np.ones(2047)), "holds 2047 values, not 2048"),
    ):
        content = vector.serialize()
        block = np.frombuffer(2 * (len(content).to_bytes(4, "little") + content), np.uint8)
        assert fault in aggregation.fault_of(Contribution([part.parameters[0], block], 5, {}), list(MODEL.values()))


def test_contributions_must_be_of_the_model_and_of_one_layout():
    aggregation = half("aggregation")
    part = sent(node(), drawn(1), 5, told(aggregation, 2))
    assert "has 3004 values, the model has 5" in aggregation.fault_of(part, [np.zeros(5)])
    assert "names 6 examples, and its ciphertexts 5" in aggregation.fault_of(
        Contribution(part.parameters, 6, {}), list(MODEL.values())
    )
    turned = {**MODEL, "a": np.zeros((50, 60), np.float32)}
    other = sent(node(turned), {**drawn(2), "a": drawn(2)["a"].T}, 5, told(aggregation, 2))
    with pytest.raises(ValueError, match="different layouts"):
        aggregation.aggregate(2, summed(aggregation, [part]), [part, other])
    with pytest.raises(BadParameters, match="another model"):
        node().incoming(other.parameters, {})
    idle = sent(node(), drawn(1), 0, told(aggregation, 1))
    with pytest.raises(ValueError, match="no node names any examples"):
        aggregation.aggregate(1, list(MODEL.values()), [idle])
    with pytest.raises(BadParameters, match="average over no examples"):
        node().incoming(idle.parameters, {})


def test_a_changed_ciphertext_is_noticed_by_the_nodes():
    mechanism = node()
    arrays = summed(half("aggregation"), [sent(mechanism, drawn(1), 5, told(half("aggregation"), 1))])
    changed = arrays[1].copy()
    changed[30000] ^= 1
    with pytest.raises(BadParameters, match="ciphertexts were refused"):
        mechanism.incoming([arrays[0], changed], {})
    with pytest.raises(BadParameters, match="0 ciphertexts arrived, not 2"):
        mechanism.incoming(arrays[:1], {})


def test_a_model_of_many_blocks_comes_back_in_order():
    from locex_privacy.homomorphic.payload import PER_BLOCK

    size = 2048 * (PER_BLOCK + 2) + 1
    model = {"w": np.arange(size, dtype=np.float32) / size}
    aggregation, mechanism = half("aggregation"), node(model)
    part = sent(mechanism, model, 3, told(aggregation, 1))
    assert len(part.parameters) == 3
    arrived = mechanism.incoming(summed(aggregation, [part], list(model.values())), {})["w"]
    np.testing.assert_allclose(arrived, model["w"], rtol=0, atol=1e-6)
    assert sum(array.nbytes for array in part.parameters) < 31 * size


def test_a_round_after_the_first_takes_ciphertexts_for_the_current_model():
    aggregation, mechanism = half("aggregation"), node()
    config = told(aggregation, 1)
    current = summed(aggregation, [sent(mechanism, drawn(1), 5, config)])
    restored = half("aggregation")  # another process goes on
    restored.restore(aggregation.state())
    arrived = mechanism.incoming(summed(restored, [sent(mechanism, drawn(2), 9, config)], current), {})
    np.testing.assert_allclose(arrived["a"], drawn(2)["a"], rtol=0, atol=1e-6)


TENSORFLOW_FIRST = """
import sys
from pathlib import Path

import tensorflow
import numpy as np

from locex_privacy.homomorphic.ckks import Cipher
from locex_privacy.homomorphic.keys import read_key

key = read_key(Path(sys.argv[1]), "HM_SECRET_FILE")
cipher = Cipher(key.content, key.parameters)
print(cipher.decrypt(cipher.add([cipher.encrypt(np.ones(3)), cipher.encrypt(np.ones(3))]))[:3].round(4).tolist())
"""


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_it_encrypts_in_a_process_that_holds_tensorflow(key_folder):
    """Both bring a protobuf; the worker of a Keras model that encrypts holds both."""
    argv = [sys.executable, "-c", TENSORFLOW_FIRST, str(key_folder / "fed.secret")]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "[2.0, 2.0, 2.0]"), ended.stderr[-2000:]
