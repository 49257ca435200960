"""``compression``: what the codecs lose, that nothing is lost for good, and what the collector refuses."""

from importlib.metadata import entry_points

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from locex.api import Contribution, ContributionDecoder, PrivacyReview, Stage, Update
from locex.errors import InvalidConfiguration, PrivacyRefused
from locex.schemas.base import validate
from locex_privacy.compression.codecs import BLOCK, Half, Int8, TopK

RELAXED = settings(deadline=None)  # the machine may be busy
METHODS = ["int8", "fp16", "topk"]
VECTORS = hnp.arrays(np.float32, st.integers(0, 3 * BLOCK + 1), elements=st.floats(-(2.0**100), 2.0**100, width=32))


def plugin(group):
    (entry,) = entry_points(group=group, name="compression")
    return entry.load()()


def compressor(**fields):
    installed = plugin("locex.privacy")
    return installed.locex_create_privacy(validate(installed.locex_config_model(), fields), None)


def decoder():
    return plugin("locex.aggregation").locex_create_aggregation()


def model(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        "weight": (rng.normal(size=(30, 40)) * scale).astype(np.float32),
        "steps": np.array(seed, np.int64),
        "bias": (rng.normal(size=40) * scale).astype(np.float64),
        "half": (rng.normal(size=3) * scale).astype(np.float16),
        "empty": np.zeros((0, 3), np.float32),
        "mask": np.array([True, False]),
    }


def sent(mechanism, reference, trained, examples=5):
    """Return what the collector reads of an update; everything passes as arrays in order, as on a wire."""
    update = mechanism.outgoing(Update(trained, reference, examples, {"loss": 1.0}), {})
    assert list(update.parameters) == [str(position) for position in range(len(update.parameters))]
    return update, decoder().decode(
        Contribution(list(update.parameters.values()), update.examples, update.metrics), list(reference.values())
    )


def size(arrays):
    return sum(array.nbytes for array in arrays)


# --- codecs


@RELAXED
@given(VECTORS)
def test_int8_is_off_by_half_a_step_of_its_block(vector):
    arrays = Int8().encode(vector)

    decoded = Int8().decode(arrays, vector.size)

    assert decoded.dtype == np.float32
    for start in range(0, vector.size, BLOCK):
        block, read = (one[start : start + BLOCK].astype(np.float64) for one in (vector, decoded))
        step = np.abs(block).max() / 127
        assert np.abs(block - read).max() <= step * (0.5 + 1e-4) + 1e-43  # float32 ends there


@RELAXED
@given(VECTORS)
def test_fp16_keeps_eleven_bits_and_stops_at_its_range(vector):
    decoded = Half().decode(Half().encode(vector), vector.size)

    inside = np.clip(vector, -65504, 65504)
    np.testing.assert_allclose(decoded, inside, rtol=2**-11, atol=2**-25)


@RELAXED
@given(VECTORS, st.floats(0.001, 1))
def test_topk_keeps_the_largest_and_zeroes_the_rest(vector, keep):
    decoded = TopK(keep).decode(TopK(keep).encode(vector), vector.size)

    kept = decoded != 0
    count = min(vector.size, max(1, round(keep * vector.size)))
    assert kept.sum() <= count
    np.testing.assert_array_equal(decoded[kept], vector[kept])
    if 0 < count < vector.size:
        assert np.sort(np.abs(decoded))[-count:].sum() == pytest.approx(np.sort(np.abs(vector))[-count:].sum())


@pytest.mark.parametrize(("method", "ratio"), [("int8", 0.254), ("fp16", 0.5), ("topk", 0.1)])
def test_bytes_of_a_large_update(method, ratio):
    reference = {"w": np.zeros((1000, 256), np.float32)}
    trained = {"w": np.random.default_rng(0).normal(size=(1000, 256)).astype(np.float32)}

    update, _ = sent(compressor(method=method), reference, trained)

    assert size(update.parameters.values()) / size(trained.values()) == pytest.approx(ratio, abs=0.001)


# --- both halves


@pytest.mark.parametrize("method", METHODS)
def test_an_update_comes_back_in_the_models_shapes(method):
    reference, trained = model(), model(seed=1)

    update, read = sent(compressor(method=method), reference, trained)

    assert isinstance(decoder(), ContributionDecoder)
    assert (read.examples, read.metrics) == (5, {"loss": 1.0})
    assert [one.shape for one in read.parameters] == [one.shape for one in trained.values()]
    for (name, own), arrived in zip(trained.items(), read.parameters, strict=True):
        if own.dtype.kind != "f":
            np.testing.assert_array_equal(arrived, own, strict=True)
        elif method != "topk":
            step = np.abs(own.astype(np.float64) - reference[name]).max(initial=0) / 100
            np.testing.assert_allclose(arrived, own, atol=max(step, 0.03))
    assert (update.examples, update.metrics, update.reference) == (5, {"loss": 1.0}, reference)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_round_loses_later_rounds_carry(method):
    """The sum of what arrived is the sum of what was learnt, but for one round's loss, however long it goes on."""
    rng, mechanism, reference = np.random.default_rng(1), compressor(method=method), {"w": np.zeros(2000, np.float32)}
    meant = arrived = 0.0
    for _ in range(60):
        change = rng.normal(size=2000).astype(np.float32) * np.float32(0.01) + np.float32(0.003)
        _, read = sent(mechanism, reference, {"w": change})
        meant, arrived = meant + change.astype(np.float64), arrived + read.parameters[0]

    held_back = mechanism.state()["residual"]
    np.testing.assert_allclose(arrived + held_back, meant, atol=1e-6)
    assert np.linalg.norm(held_back) < (0.25 if method == "topk" else 0.01) * np.linalg.norm(meant)


def test_what_half_precision_cannot_hold_arrives_in_parts():
    mechanism, reference = compressor(method="fp16"), {"w": np.zeros(1, np.float32)}

    parts = [sent(mechanism, reference, {"w": np.full(1, value, np.float32)})[1] for value in (150_000, 0, 0)]

    assert sum(part.parameters[0][0] for part in parts) == pytest.approx(150_000)


def test_a_restart_loses_nothing_of_what_was_held_back():
    reference, trained = model(), model(seed=1)
    whole, stopped, resumed = (compressor(method="topk", keep=0.1) for _ in range(3))
    for mechanism in (whole, stopped):
        sent(mechanism, reference, trained)

    resumed.restore(stopped.state())

    (expected, _), (actual, _) = sent(whole, reference, reference), sent(resumed, reference, reference)
    for name, tensor in expected.parameters.items():
        np.testing.assert_array_equal(actual.parameters[name], tensor)
    resumed.restore(compressor().state())
    assert resumed.state() == {}


def test_inputs_are_not_written_to():
    reference, trained = model(), model(seed=1)
    for tensor in (*reference.values(), *trained.values()):
        tensor.flags.writeable = False

    for method in METHODS:
        mechanism = compressor(method=method)
        sent(mechanism, reference, trained)
        sent(mechanism, reference, trained)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_an_update_that_float32_cannot_hold_is_refused_and_not_remembered(bad):
    mechanism = compressor()

    with pytest.raises(PrivacyRefused, match="not finite"):
        mechanism.outgoing(Update({"w": np.array([bad])}, {"w": np.zeros(1)}, 1, {}), {})

    assert mechanism.state() == {}


# --- what the collector refuses

CURRENT = [np.zeros((2, 3), np.float32), np.array(3)]
INT8 = [np.ones(6, np.int8), np.ones(1, np.float32), np.array(3)]
TOPK = [np.array([1, 4], np.uint32), np.ones(2, np.float32), np.array(3)]


@pytest.mark.parametrize("arrays", [INT8, [np.ones(6, np.float16), np.array(3)], TOPK])
def test_what_is_whole_is_read(arrays):
    read = decoder().decode(Contribution(arrays, 1, {}), CURRENT)

    assert [one.shape for one in read.parameters] == [(2, 3), ()]


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ([], "it is empty"),
        (CURRENT, "begins with float32"),
        (INT8[:2], "2 arrays, 2 . 1 are due"),
        (INT8[:1], "1 arrays"),
        ([*INT8, np.ones(1)], "4 arrays"),
        ([np.ones(5, np.int8), *INT8[1:]], r"int8 with shape \[5\]"),
        ([np.ones((2, 3), np.int8), *INT8[1:]], r"\[2, 3\]"),
        ([INT8[0], np.ones(2, np.float32), np.array(3)], r"float32 with shape \[2\]"),
        ([INT8[0], np.ones(1), np.array(3)], "float64"),
        ([INT8[0], np.full(1, np.nan, np.float32), np.array(3)], "not finite"),
        ([INT8[0], np.full(1, -1, np.float32), np.array(3)], "negative"),
        ([np.ones(7, np.float16), np.array(3)], r"float16 with shape \[7\]"),
        ([np.array([4, 1], np.uint32), *TOPK[1:]], "do not ascend"),
        ([np.array([1, 1], np.uint32), *TOPK[1:]], "do not ascend"),
        ([np.array([1, 6], np.uint32), *TOPK[1:]], "do not ascend"),
        ([np.arange(7, dtype=np.uint32), np.ones(7, np.float32), np.array(3)], "7 positions for 6"),
        ([TOPK[0], np.ones(3, np.float32), np.array(3)], r"float32 with shape \[3\]"),
        ([np.array([[1]], np.uint32), *TOPK[1:]], "positions"),
    ],
)
def test_what_no_node_of_ours_sends_is_refused(arrays, part):
    with pytest.raises(ValueError, match=part):
        decoder().decode(Contribution(arrays, 1, {}), CURRENT)


# --- configuration


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"method": "zip"}, "/method"),
        ({"method": "topk", "keep": 0}, "/keep"),
        ({"method": "topk", "keep": 1.1}, "/keep"),
        ({"method": "int8", "keep": 0.1}, "keep is a field of topk, not of int8"),
        ({"level": 9}, "unknown key"),
    ],
)
def test_fields_that_mean_nothing_are_refused(fields, part):
    with pytest.raises(InvalidConfiguration, match=part):
        compressor(**fields)


def test_a_job_is_told_that_the_collector_must_be_ours():
    installed = plugin("locex.privacy")
    config = validate(installed.locex_config_model(), {})

    (warning,) = installed.locex_review_privacy(PrivacyReview({"compression": config}, "flower-grpc", "torch"))

    assert "a stock Flower server fails" in warning
    assert compressor().stage == decoder().stage == Stage.COMPRESS
    assert not compressor().withholds_metrics
    for federation in ("flower-grpc", "flower-superlink"):
        compressor().requires(federation)
