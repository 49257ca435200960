"""CKKS parameters: which are secure, and how large sums may become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SECURE_BITS = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
"""The most bits of all coefficient primes together for 128-bit security, by polynomial degree.

Homomorphic Encryption Security Standard (HomomorphicEncryption.org, Albrecht et al. 2018), table 1: classical
attacks, ternary secrets, as SEAL has them.
"""
PRIME_BITS = (20, 60)  # SEAL has no larger ones; smaller ones than 20 bits are too few for most degrees
LEAST_PRIMES = 2
LEAST_SCALE = 20  # bits; beneath, the error is beyond 1e-3
LEAST_ROOM = 8  # bits of the largest sum

N = "poly_modulus_degree"
BITS = "coeff_mod_bit_sizes"


def insecurity_of(degree: int, bits: Sequence[int]) -> str:
    """Return why degree and primes must not be used, or an empty string."""
    if degree not in SECURE_BITS:
        return f"{N} is {degree}; it must be one of {', '.join(map(str, SECURE_BITS))}"
    if len(bits) < LEAST_PRIMES:
        return f"{BITS} names {len(bits)} prime; two are needed, since SEAL keeps the last one for keys"
    low, high = PRIME_BITS
    if wrong := [one for one in bits if not low <= one <= high]:
        return f"{BITS} names a prime of {wrong[0]} bits; {low} to {high} are possible"
    if sum(bits) > SECURE_BITS[degree]:
        return (
            f"{BITS} has {sum(bits)} bits together; at {N}={degree} more than {SECURE_BITS[degree]} are less than "
            f"128 bits of security (HomomorphicEncryption.org standard): use fewer or a larger degree"
        )
    return ""


def room_of(bits: Sequence[int], scale_bits: int) -> int:
    """Return log2 of the bound of a sum.

    A value times 2^scale_bits must stay within half the modulus, which is the product of all primes but the last;
    one more bit is left to the noise and to primes that are smaller than their bits say.
    """
    return sum(bits[:-1]) - scale_bits - 2


def imprecision_of(bits: Sequence[int], scale_bits: int) -> str:
    """Return why a scale must not be used with these primes, or an empty string."""
    if scale_bits < LEAST_SCALE:
        return f"scale_bits is {scale_bits}: with fewer than {LEAST_SCALE} the error is beyond 0.001"
    if (room := room_of(bits, scale_bits)) < LEAST_ROOM:
        return (
            f"scale_bits is {scale_bits}: with {BITS}={list(bits)} it leaves {room} bits for max|w|·examples·nodes, "
            f"less than {LEAST_ROOM}"
        )
    return ""


class CkksParameters(BaseModel):
    """Parameters of a key. The defaults are for additions only: no multiplication needs a further prime."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    poly_modulus_degree: int = Field(default=4096, description="N: a ciphertext holds N/2 values.")
    coeff_mod_bit_sizes: tuple[int, ...] = Field(default=(54, 54), description="Bits of each prime of the modulus.")
    scale_bits: int = Field(default=30, description="Values are multiplied by 2^scale_bits and rounded.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        bits = self.coeff_mod_bit_sizes
        if fault := insecurity_of(self.poly_modulus_degree, bits) or imprecision_of(bits, self.scale_bits):
            raise ValueError(fault)
        return self

    @property
    def slots(self) -> int:
        """How many values a ciphertext holds."""
        return self.poly_modulus_degree // 2

    @property
    def bound(self) -> float:
        """What a sum must stay below, else it wraps in silence."""
        return 2.0 ** room_of(self.coeff_mod_bit_sizes, self.scale_bits)
