"""What steps compute, against the libraries that people know it from."""

import base64
import io
import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage
import scipy.special
from PIL import Image
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from locex.api import Dataset, FittedTransform, RandomTransform
from locex.errors import InvalidConfiguration
from locex.schemas.data_format import DataFormat

RNG = np.random.default_rng(7)


def of(x):
    return Dataset(x, np.zeros(len(x), np.int64))


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(7, 40), (31, 17), (5, 60), (64, 64)])
def test_resize_is_pillows(method, size, make_step):
    images = RNG.random((3, 31, 50)).astype(np.float32)

    result = make_step("resize", size=size, method=method).transform_data(of(images)).x

    resampling = Image.Resampling[method.upper()]
    for image, resized in zip(images, result, strict=True):
        expected = np.asarray(Image.fromarray(image).resize(size[::-1], resampling))
        np.testing.assert_allclose(resized, expected, atol=1e-5)


def test_resize_rounds_bytes_and_keeps_channels_wherever_they_stand(make_step):
    images = RNG.integers(0, 256, (2, 9, 11, 3), np.uint8)

    last = make_step("resize", size=[20, 5]).transform_data(of(images)).x
    first = make_step("resize", size=[20, 5], axes=[1, 2]).transform_data(of(np.moveaxis(images, -1, 1))).x
    old = make_step("resize_pillow_array", size=[5, 20]).transform_data(of(images)).x

    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), last)
    for image, resized, cubic in zip(images, last, old, strict=True):
        assert np.abs(np.asarray(Image.fromarray(image).resize((5, 20), 2)).astype(int) - resized).max() <= 1
        assert np.abs(np.asarray(Image.fromarray(image).resize((5, 20))).astype(int) - cubic).max() <= 1


def test_scalers_are_sklearns_and_learn_from_the_training_split_alone(make_step):
    train, test = RNG.normal(5, 3, (1000, 4)), RNG.normal(size=(10, 4))
    for name, theirs in (("standard_scale", StandardScaler()), ("min_max_scale", MinMaxScaler())):
        ours = make_step(name)
        assert isinstance(ours, FittedTransform)
        with pytest.raises(ValueError, match="has not learned"):
            ours.transform_data(of(test))
        ours.fit(of(train))
        theirs.fit(train)
        np.testing.assert_allclose(ours.transform_data(of(test)).x, theirs.transform(test), rtol=1e-4, atol=1e-5)


def test_scalers_learn_chunk_by_chunk_what_the_whole_tells(make_step, monkeypatch):
    x = RNG.normal(1e4, 1, (1001, 3, 2))
    monkeypatch.setattr("locex_transforms.batches.BATCH_BYTES", 1000)
    for axis, axes in ((None, 0), (-1, (0, 1)), (0, (0, 2))):
        scaler = make_step("standard_scale", axis=axis)
        scaler.fit(of(x))
        expected = (x - x.mean(axes, keepdims=True)) / x.std(axes, keepdims=True)
        np.testing.assert_allclose(scaler.transform_data(of(x)).x, expected, atol=1e-3)
        lengths = make_step("min_max_scale", axis=axis, low=-1)
        lengths.fit(of(x))
        scaled = lengths.transform_data(of(x)).x
        np.testing.assert_allclose(scaled.min(axes), -1, atol=1e-4)
        np.testing.assert_allclose(scaled.max(axes), 1, atol=1e-4)


def test_constant_features_become_numbers_and_missing_ones_are_refused(make_step):
    for name in ("standard_scale", "min_max_scale"):
        scaler = make_step(name)
        scaler.fit(of(np.full((3, 2), 5)))
        np.testing.assert_array_equal(scaler.transform_data(of(np.full((2, 2), 5))).x, np.zeros((2, 2)))
        with pytest.raises(ValueError, match="cannot learn from NaN"):
            scaler.fit(of(np.array([[1.0, np.nan]])))
        with pytest.raises(ValueError, match="there are none"):
            scaler.fit(of(np.empty((0, 2))))
        tenths = np.full((1003, 2), 0.1)  # whose sum is rounded
        scaler.fit(of(tenths))
        np.testing.assert_allclose(scaler.transform_data(of(tenths)).x, np.zeros((1003, 2)), atol=1e-9)


def test_impute_fills_with_a_constant_or_with_the_training_mean(make_step):
    x = np.array([[1, np.nan, -9], [3, 4, np.nan], [5, np.nan, -9]], np.float32)
    filled = make_step("impute", value=7, missing=-9).transform_data(of(x)).x
    np.testing.assert_array_equal(filled, np.array([[1, 7, 7], [3, 4, 7], [5, 7, 7]], np.float32))
    step = make_step("impute", strategy="mean", missing=-9)
    with pytest.raises(ValueError, match="has not learned"):
        step.transform_data(of(x))
    step.fit(of(x))
    filled = step.transform_data(of(np.full((1, 3), np.nan, np.float32))).x
    np.testing.assert_array_equal(filled, np.array([[3, 4, 0]], np.float32))
    assert not isinstance(make_step("impute"), FittedTransform)


def test_softmax_argmax_and_names_make_answers_of_outputs(make_step):
    outputs = RNG.normal(0, 50, (6, 3)).astype(np.float32)
    chances = make_step("softmax").transform_data(of(outputs))
    np.testing.assert_allclose(chances.x, scipy.special.softmax(outputs, 1), rtol=1e-5)
    best = make_step("argmax").transform_data(chances)
    names = make_step("label_mapping", labels=["ant", "bee", "cicada"]).transform_data(best)
    assert names.x.tolist() == [["ant", "bee", "cicada"][index] for index in outputs.argmax(1)]
    damage = make_step("construct_car_damage_output_dictionary", labels=["ant", "bee", "cicada"])
    assert damage.transform_data(of(outputs)).x.tolist() == names.x.tolist()
    assert damage.transform_data(best).x.tolist() == names.x.tolist()
    given = DataFormat.of({"scores": {"size": [3], "dtype": "float32"}}, {"y": {"size": []}})
    assert damage.transform_format(given).x.model_dump(exclude_none=True) == {"data_types": {"text": {"size": []}}}


def test_labels_may_be_other_indices(make_step, apply_step):
    step = make_step("label_mapping", labels=[7, 5], side="y")
    result, after = apply_step(step, Dataset(np.zeros((3, 1)), np.array([0, 1, 1], np.uint8)))
    assert result.y.tolist() == [7, 5, 5]
    assert list(after.y.data_types) == ["categorical"]
    with pytest.raises(ValueError, match="2 labels, but y holds 0 to 2"):
        step.transform_data(Dataset(np.zeros((2, 1)), np.array([0, 2])))
    with pytest.raises(ValueError, match="needs integers"):
        step.transform_data(Dataset(np.zeros((2, 1)), np.zeros(2)))


def test_lengths_columns_filters_and_milli_g(make_step):
    vectors = np.array([[[3, 4], [0, 0]], [[30000, 40000], [1, 0]]], np.int32)
    lengths = make_step("compute_vector_length").transform_data(of(vectors)).x
    np.testing.assert_array_equal(lengths, [[5, 0], [50000, 1]])
    assert make_step("merge_as_column").transform_data(of(vectors)).x.tolist() == vectors.reshape(2, 4).tolist()
    several = DataFormat.of(
        {"image": {"size": [2, 2], "dtype": "float32"}, "numerical": {"size": [], "dtype": "float32"}},
        {"y": {"size": 1}},
    )
    merged = make_step("merge_as_column").transform_format(several)
    assert merged.x.data_types["tabular"].size == [5]
    kept = make_step("filter_outputs", outputs=[2, 0], threshold=0.5).transform_data(of(np.array([[0.9, 1, 0.4]])))
    assert kept.x.tolist() == [[0, 0.9]]
    assert make_step("rescale_values_to_milli_gi").transform_data(of(np.array([[-0.5]]))).x.tolist() == [[-500]]


def test_clip_rounds_inwards_for_integers_and_keeps_nan(make_step):
    step = make_step("clip", min=0.5, max=3.5)
    assert step.transform_data(of(np.array([0, 1, 9], np.uint8))).x.tolist() == [1, 1, 3]
    np.testing.assert_array_equal(step.transform_data(of(np.array([np.nan, 9, -1]))).x, [np.nan, 3.5, 0.5])


# --- augmentation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fields"), [("random_flip", {}), ("random_noise", {"std": 20}), ("random_rotation", {})]
)
def test_augmentation_is_drawn_anew_but_repeatable(name, fields, make_step):
    images = RNG.integers(0, 256, (16, 8, 8, 3), np.uint8)
    step, before = make_step(name, **fields), images.copy()
    assert isinstance(step, RandomTransform)
    once, again, other = (step.transform_batch(of(images), np.random.default_rng(seed)).x for seed in (1, 1, 2))
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(once, again)
    assert (once.shape, once.dtype) == (images.shape, images.dtype)
    assert (once != other).any()
    assert step.transform_data(of(images)).x is images


def test_flips_mirror_their_share(make_step):
    images = RNG.random((2000, 2, 3))
    flipped = make_step("random_flip", probability=0.25).transform_batch(of(images), np.random.default_rng(0)).x
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2))
    assert (mirrored | (flipped == images).all((1, 2))).all()
    assert 0.2 < mirrored.mean() < 0.3


def test_rotation_is_scipys(make_step):
    class Fixed:
        def uniform(self, _low, high, count):
            return np.full(count, high)

    images = RNG.random((2, 12, 12))
    turned = make_step("random_rotation", degrees=30, fill=0.25).transform_batch(of(images), Fixed()).x
    expected = scipy.ndimage.rotate(images, 30, axes=(1, 2), reshape=False, order=1, cval=0.25, mode="constant")
    inner = (slice(None), slice(3, 9), slice(3, 9))
    np.testing.assert_allclose(turned[inner], expected[inner], atol=1e-5)
    quarter = make_step("random_rotation", degrees=90).transform_batch(of(images), Fixed()).x
    np.testing.assert_allclose(quarter, np.rot90(images, 1, (1, 2)), atol=1e-4)


def test_noise_has_its_deviation_and_bounds(make_step):
    x = np.zeros((1000, 20), np.float32)
    noisy = make_step("random_noise", std=2).transform_batch(of(x), np.random.default_rng(0)).x
    assert abs(noisy.std() - 2) < 0.05
    bounded = make_step("random_noise", std=2, low=-1, high=1).transform_batch(of(x), np.random.default_rng(0)).x
    assert (bounded.min(), bounded.max()) == (-1, 1)
    dark = make_step("random_noise", std=50).transform_batch(of(x.astype(np.uint8)), np.random.default_rng(0)).x
    assert dark.dtype == np.uint8
    assert (dark == 0).mean() > 0.4


# --- texts and encoded images -----------------------------------------------------------------------------------------

TEXTS = ["the cat sat", "The CAT sat", "", "dög", "x" * 50]


def test_texts_hash_alike_in_every_process(make_step):
    ours = make_step("text_hashing", dimensions=64).transform_data(of(np.array(TEXTS))).x
    program = (
        "import numpy as np; from locex.api import Dataset; from locex_transforms.steps.text_hashing import *;"
        f"data = Dataset(np.array({TEXTS!r}), np.zeros(5));"
        "x = TextHashingStep(TextHashingConfig(dimensions=64)).transform_data(data).x; print(x.tobytes().hex())"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": "5"}, check=True, capture_output=True, text=True
    )
    assert told.stdout.strip() == ours.tobytes().hex()
    assert np.flatnonzero(
        make_step("text_hashing", dimensions=64).transform_data(of(np.array(["cat"]))).x
    ).tolist() == [4, 43, 44]  # fixed for ever: models are trained on it


def test_texts_become_vectors_of_their_ngrams(make_step, apply_step):
    result, after = apply_step(make_step("text_hashing"), of(np.array(TEXTS)))
    assert list(after.x.data_types) == ["tabular"]
    np.testing.assert_array_equal(result.x[0], result.x[1])  # case
    np.testing.assert_allclose(np.linalg.norm(result.x, axis=1), [1, 1, 0, 1, 1], rtol=1e-6)
    sensitive = make_step("text_hashing", lowercase=False, norm="none").transform_data(of(np.array(TEXTS))).x
    assert (sensitive[0] != sensitive[1]).any()
    assert np.abs(sensitive[4]).sum() == 49 + 48 + 47
    cut = make_step("text_hashing", max_length=11).transform_data(of(np.array(["the cat sat on", "the cat sat"]))).x
    np.testing.assert_array_equal(cut[0], cut[1])
    related = result.x @ make_step("text_hashing").transform_data(of(np.array(["the cat"]))).x[0]
    assert related[0] > 0.5 > abs(related[4])


@pytest.mark.parametrize("dtype", [object, np.str_, np.bytes_])
def test_texts_may_come_in_any_type(dtype, make_step):
    plain = make_step("text_hashing").transform_data(of(np.array(["abc", "de"]))).x
    words = np.array([b"abc", b"de"] if dtype is np.bytes_ else ["abc", "de"], dtype)
    np.testing.assert_array_equal(make_step("text_hashing").transform_data(of(words[:, None])).x, plain)
    with pytest.raises(ValueError, match="needs texts"):
        make_step("text_hashing").transform_data(of(np.zeros(3)))


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return stream.getvalue()


def test_encoded_images_become_arrays(make_step, apply_step):
    images = RNG.integers(0, 256, (3, 6, 5, 3), np.uint8)
    files = np.array([encoded(image) for image in images], object)
    result, after = apply_step(make_step("read_image_batch", size=[6, 5]), of(files))
    np.testing.assert_array_equal(result.x, images)
    assert list(after.x.data_types) == ["image"]
    words = np.array([base64.b64encode(file).decode() for file in files])
    np.testing.assert_array_equal(make_step("read_image_batch", size=[6, 5]).transform_data(of(words)).x, images)
    grey = make_step("read_image_batch", size=[3, 3], mode="L").transform_data(of(files)).x
    assert grey.shape == (3, 3, 3)


def test_what_is_no_image_is_named_and_bombs_are_not_decoded(make_step):
    step = make_step("read_image_batch", size=[6, 5], max_pixels=100)
    good = encoded(np.zeros((6, 5), np.uint8))
    with pytest.raises(ValueError, match="example 1: not an image"):
        step.transform_data(of(np.array([good, b"GIF89a?"], object)))
    with pytest.raises(ValueError, match="example 0: an image of 20 x 10 pixels has more than 100"):
        step.transform_data(of(np.array([encoded(np.zeros((10, 20), np.uint8))], object)))
    with pytest.raises(ValueError, match="example 0"):
        step.transform_data(of(np.array(["no base64!"])))
    huge = bytearray(good)
    huge[16:24] = (2**31 - 1).to_bytes(4, "big") * 2  # the header alone says so
    with pytest.raises(ValueError, match="example 0"):
        step.transform_data(of(np.array([bytes(huge)], object)))
    with pytest.raises(ValueError, match="needs encoded images"):
        step.transform_data(of(np.zeros(3)))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("clip", {}),
        ("clip", {"min": 2, "max": 1}),
        ("crop", {"size": [0, 1]}),
        ("filter_outputs", {}),
        ("label_mapping", {"labels": []}),
        ("min_max_scale", {"low": 1, "high": 1}),
        ("random_flip", {"probability": 2}),
        ("rescale", {"scale": 0}),
        ("resize", {"size": [3]}),
        ("resize", {"size": [3, 3], "axes": [1, 1]}),
        ("text_hashing", {"shortest": 5}),
        ("transpose", {"axes": [0, 0]}),
        ("ndarray_to_torch_tensor", {"device": "cuda"}),
    ],
)
def test_configurations_that_are_refused(name, fields, make_step):
    with pytest.raises(InvalidConfiguration):
        make_step(name, **fields)
