"""CKKS by TenSEAL: encrypting, adding, decrypting. The one module that imports it.

Encryption is symmetric, since every node has the secret key anyway: it takes half the time of encryption with a
public key, its error is a tenth, and whoever has only the public half cannot even make ciphertexts.
Only TenSEAL's own serialisation is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from locex.api import Array
from locex.errors import InvalidConfiguration
from locex_privacy.homomorphic.parameters import CkksParameters

_usual = sys.getdlopenflags()
# TenSEAL holds a protobuf of its own, and TensorFlow lends everybody another one: without a preference for its own,
# TenSEAL's first serialisation behind TensorFlow ends the process (TenSEAL 0.3.18, TensorFlow 2.21).
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0))
try:
    import tenseal as ts
finally:
    sys.setdlopenflags(_usual)


def new_contexts(parameters: CkksParameters) -> tuple[bytes, bytes]:
    """Return a new secret context and its public half, serialised; raise `InvalidConfiguration`."""
    try:
        context = ts.context(
            ts.SCHEME_TYPE.CKKS,
            parameters.poly_modulus_degree,
            coeff_mod_bit_sizes=list(parameters.coeff_mod_bit_sizes),
            encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC,
        )
    except (ValueError, RuntimeError) as error:
        raise InvalidConfiguration(
            f"SEAL cannot make a key with these parameters: {error}", remedy="leave them out, or choose other primes"
        ) from None
    context.global_scale = 2**parameters.scale_bits
    return _serialised(context, secret=True), _serialised(context, secret=False)


def _serialised(context: ts.Context, *, secret: bool) -> bytes:
    return cast(
        "bytes",
        context.serialize(save_public_key=False, save_secret_key=secret, save_galois_keys=False, save_relin_keys=False),
    )


class Adder:
    """What the public half can do: read ciphertexts and add them."""

    def __init__(self, context: bytes, parameters: CkksParameters) -> None:
        """Load a context; a collector's must hold no secret key."""
        self._context = ts.context_from(context)
        self._slots = parameters.slots
        self._form = (1, 2.0**parameters.scale_bits, 2, len(parameters.coeff_mod_bit_sizes) - 1)

    @property
    def holds_secret(self) -> bool:
        """Whether the context could decrypt."""
        return bool(self._context.has_secret_key())

    def check(self, ciphertext: bytes) -> None:
        """Raise `ValueError` for what is no ciphertext of a full vector under these parameters, fit to be added."""
        self._read(ciphertext)

    def add(self, ciphertexts: Sequence[bytes]) -> bytes:
        """Return the sum of ciphertexts; raise `ValueError` for those that cannot be added."""
        total = self._read(ciphertexts[0])
        for ciphertext in ciphertexts[1:]:
            total += self._read(ciphertext)
        return cast("bytes", total.serialize())

    def _read(self, ciphertext: bytes) -> ts.CKKSVector:
        try:
            vector = ts.ckks_vector_from(self._context, ciphertext)
            size, ciphertexts = vector.size(), vector.ciphertext()
            form = (len(ciphertexts), *_form_of(ciphertexts[0]))
        except (ValueError, RuntimeError, IndexError) as error:
            raise ValueError(f"a ciphertext cannot be read: {error}") from None
        if size != self._slots:
            raise ValueError(f"a ciphertext holds {size} values, not {self._slots}")
        if form != self._form:  # others could not be added to it
            raise ValueError("a ciphertext has another scale, level or size than encryption gives it")
        return vector


class Cipher(Adder):
    """What the secret can do besides: encrypt and decrypt vectors of as many values as there are slots."""

    def encrypt(self, values: Array) -> bytes:
        """Return the ciphertext of float64 values, padded with zeros."""
        padded = np.zeros(self._slots)
        padded[: len(values)] = values
        return cast("bytes", ts.ckks_vector(self._context, padded).serialize())

    def decrypt(self, ciphertext: bytes) -> Array:
        """Return float64 values; raise `ValueError` for what is no ciphertext."""
        return np.array(self._read(ciphertext).decrypt())


def _form_of(ciphertext: Any) -> tuple[float, int, int]:
    """Return a SEAL ciphertext's scale, number of polynomials and number of primes."""
    return ciphertext.scale, ciphertext.size(), ciphertext.coeff_modulus_size()
