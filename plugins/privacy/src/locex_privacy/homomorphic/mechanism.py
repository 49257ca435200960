"""The node's half of ``homomorphic``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from locex.api import (
    Array,
    Incoming,
    Parameters,
    PrivacyContext,
    PrivacyMechanism,
    PrivacyReview,
    Scalar,
    Stage,
    TrainingSession,
    Update,
)
from locex.errors import BadParameters, PrivacyRefused
from locex.hookspecs import hookimpl
from locex_privacy.combinations import refuse_senseless
from locex_privacy.homomorphic.config import HomomorphicConfig
from locex_privacy.homomorphic.instruction import CLIENTS, KEY
from locex_privacy.homomorphic.keys import KeyFile
from locex_privacy.homomorphic.layout import Layout
from locex_privacy.homomorphic.payload import Header, ciphertexts_of, header_of, is_encrypted, pack, tensors_of
from locex_privacy.homomorphic.settings import secret_key
from locex_privacy.mechanism import Mechanism

if TYPE_CHECKING:
    from locex_privacy.homomorphic.ckks import Cipher

_REMEDY = "let the server be locex's collector, and its training name homomorphic in privacy-mechanisms"


class HomomorphicMechanism(Mechanism):
    """Sends Enc(w·n) and n; decrypts the sum that comes back and divides it by Σn: the average of plain FedAvg.

    All float tensors are one vector, which fills ciphertexts one after the other. Integers and booleans (BatchNorm's
    counters) are not sent: they stay as the model began. CKKS of Cheon, Kim, Kim and Song (2017).
    """

    stage = Stage.ENCRYPT
    withholds_metrics = False

    def __init__(self, key: KeyFile, cipher: Cipher) -> None:
        """``cipher`` is made of the key."""
        self._key = key
        self._parameters = key.parameters
        self._cipher = cipher
        self._layout = Layout(())
        self._unsent: Parameters = {}

    def prepare(self, session: TrainingSession) -> None:
        """Learn the layout of the model."""
        parameters = session.get_parameters()
        self._layout = Layout.of(parameters)
        self._unsent = {name: tensor for name, tensor in parameters.items() if tensor.dtype.kind != "f"}

    def before_fit(self, config: Mapping[str, Scalar]) -> None:
        """Raise `PrivacyRefused`, before anything is trained, unless the server adds ciphertexts of this key."""
        told = config.get(KEY)
        if told is None:
            raise PrivacyRefused("the server does not say that it adds ciphertexts", remedy=_REMEDY)
        if told != self._key.key_id:
            raise PrivacyRefused(
                f"this node has the wrong key: its own is {self._key.key_id}, the federation's is {told!s}",
                remedy="mount the federation's secret key as HM_SECRET_FILE",
            )

    def incoming(
        self,
        parameters: Incoming,
        config: Mapping[str, Scalar],  # noqa: ARG002 -- the Protocol's
    ) -> Incoming:
        """Return the average that ciphertexts hold; a training's first parameters come in clear and stay so."""
        tensors = tensors_of(parameters)
        if not is_encrypted(tensors):
            return parameters
        try:
            header = header_of(tensors)
            self._refuse_foreign(header)
            total = self._decrypted(tensors[1:], header)
        except ValueError as error:
            raise _unusable(str(error)) from None
        return self._layout.parameters(total / header.examples, self._unsent)

    def outgoing(self, update: Update, config: Mapping[str, Scalar]) -> Update:
        """Return the update encrypted; raise `BadParameters` for a sum that could wrap."""
        vector = self._layout.vector(update.parameters)
        self._refuse_wrapping(vector, update.examples, int(config.get(CLIENTS, 0) or 0))
        header = Header(key=self._key.key_id, layout=self._layout.digest, values=vector.size, examples=update.examples)
        arrays = pack(header, self._encrypted(vector, update.examples))
        named = {str(index): array for index, array in enumerate(arrays)}
        return Update(named, update.reference, update.examples, update.metrics)

    def _encrypted(self, vector: Array, examples: int) -> Iterator[bytes]:
        for start in range(0, vector.size, self._parameters.slots):
            yield self._cipher.encrypt(vector[start : start + self._parameters.slots] * examples)

    def _decrypted(self, blocks: Sequence[Array], header: Header) -> Array:
        slots = self._parameters.slots
        total = np.zeros(sum(header.blocks(slots)) * slots)
        start = 0
        for block in blocks:
            for ciphertext in ciphertexts_of(block):
                if start < total.size:
                    total[start : start + slots] = self._cipher.decrypt(ciphertext)
                start += slots
        if start != total.size:
            raise ValueError(f"{start // slots} ciphertexts arrived, not {total.size // slots}")
        if not (np.abs(total) < self._parameters.bound).all():
            raise ValueError("they decrypt to values that no sum can have: they were made with another key, or changed")
        return total[: header.values]

    def _refuse_foreign(self, header: Header) -> None:
        if header.key != self._key.key_id:
            raise PrivacyRefused(
                f"this node has the wrong key: its own is {self._key.key_id}, what arrived is of {header.key}",
                remedy="mount the federation's secret key as HM_SECRET_FILE",
            )
        if (header.layout, header.values) != (self._layout.digest, self._layout.size):
            raise ValueError("they are of another model, whose tensors have other names, shapes or types")
        if not header.examples:
            raise ValueError("they are an average over no examples")

    def _refuse_wrapping(self, vector: Array, examples: int, clients: int) -> None:
        if clients < 1:
            raise PrivacyRefused("the server does not say how many nodes it adds up", remedy=_REMEDY)
        largest = float(np.abs(vector).max(initial=0.0))
        if not largest * examples * clients < self._parameters.bound:
            raise BadParameters(
                f"the sum could wrap: max|w|·examples·nodes must be less than {self._parameters.bound:g}; nothing was "
                "sent",
                # A server may name any number of nodes, and have this answer whenever it likes.
                private=f"it is {largest:.4g}·{examples}·{clients}",
                remedy="make the federation's key with a smaller --scale-bits or a larger modulus, or use fewer nodes",
            )


def _unusable(reason: str) -> BadParameters:
    return BadParameters(
        f"ciphertexts were refused: {reason}", remedy="see the collector; the node keeps its last good weights"
    )


class Homomorphic:
    """Homomorphic encryption: the server adds updates that it cannot read (``homomorphic``)."""

    @hookimpl
    def locex_config_model(self) -> type[HomomorphicConfig]:
        """Return `HomomorphicConfig`."""
        return HomomorphicConfig

    @hookimpl
    def locex_review_privacy(self, config: HomomorphicConfig, review: PrivacyReview) -> list[str]:
        """Refuse what does not go together with it, and look at the key, before the job is taken."""
        refuse_senseless("homomorphic", review)
        key, warnings = secret_key(config)
        told = f"homomorphic needs locex's collector, with the public half of key {key.key_id}"
        return [f"{told}: no stock Flower server adds ciphertexts", *warnings]

    @hookimpl
    def locex_create_privacy(self, config: HomomorphicConfig, context: PrivacyContext) -> PrivacyMechanism:  # noqa: ARG002 -- no ledger
        """Return the mechanism with this node's key."""
        key, _ = secret_key(config)
        from locex_privacy.homomorphic.ckks import Cipher

        return HomomorphicMechanism(key, Cipher(key.content, key.parameters))
