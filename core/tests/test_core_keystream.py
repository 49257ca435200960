"""Integers that two sides draw alike from a secret."""

import hashlib

import numpy as np
import pytest

from locex.keystream import uniform_integers

SEED = bytes(range(32))


def test_the_stream_is_shake_256_in_little_endian_words():
    scalar, matrix = uniform_integers(SEED, 2**32, [(), (2, 3)])
    words = np.frombuffer(hashlib.shake_256(SEED).digest(28), "<u4")
    assert (scalar.shape, scalar.dtype, scalar[()]) == ((), np.int64, words[0])
    np.testing.assert_array_equal(matrix, words[1:].reshape(2, 3))


@pytest.mark.parametrize("modulus", [2, 2**10, 2**32])
def test_every_value_below_the_modulus_is_as_likely(modulus):
    (values,) = uniform_integers(SEED, modulus, [(64_000,)])
    assert 0 <= values.min() <= values.max() < modulus
    bins = min(modulus, 64)
    expected = 64_000 / bins
    counts = np.bincount(values * bins // modulus, minlength=bins)
    # Chi-squared with at most 63 degrees of freedom: beyond 150 in one of 10^8 seeds.
    assert ((counts - expected) ** 2 / expected).sum() < 150


def test_one_bit_of_the_seed_changes_everything():
    one, other = (uniform_integers(seed, 2**32, [(1000,)])[0] for seed in (SEED, SEED[:-1] + b"\x1e"))
    assert (one == other).mean() < 0.01


@pytest.mark.parametrize("modulus", [0, 3, 2**33])
def test_a_modulus_that_would_bias_is_refused(modulus):
    with pytest.raises(ValueError, match="no power of two up to 2"):
        uniform_integers(SEED, modulus, [(1,)])
