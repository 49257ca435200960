"""The collector's half of ``homomorphic``: it adds what it cannot read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from locex.api import Array, Contribution, OpaqueAggregation, Scalar
from locex.errors import PrivacyRefused
from locex.hookspecs import hookimpl
from locex_privacy.homomorphic.config import HomomorphicConfig
from locex_privacy.homomorphic.instruction import KEY
from locex_privacy.homomorphic.keys import KeyFile
from locex_privacy.homomorphic.layout import size_of
from locex_privacy.homomorphic.payload import ciphertexts_of, header_of, is_encrypted, pack
from locex_privacy.homomorphic.settings import public_key

if TYPE_CHECKING:
    from locex_privacy.homomorphic.ckks import Adder


class EncryptedSum:
    """The sum of Enc(w·n), with Σn in clear: nodes decrypt and divide."""

    def __init__(self, key: KeyFile, adder: Adder) -> None:
        """``adder`` is made of the key, which must hold no secret."""
        if key.secret or adder.holds_secret:
            raise PrivacyRefused("a collector must not hold a secret key", remedy="mount the .public file of the pair")
        self._key = key
        self._adder = adder

    def configure(self, server_round: int) -> dict[str, Scalar]:  # noqa: ARG002 -- the Protocol's
        """Tell nodes whose ciphertexts are added, so that one with another key does not train for nothing."""
        return {KEY: self._key.key_id}

    def fault_of(self, contribution: Contribution, current: list[Array]) -> str:
        """Return what is wrong with a contribution as far as that shows from outside, or an empty string."""
        try:
            self._check(contribution, current)
        except ValueError as fault:
            return str(fault)
        return ""

    def aggregate(
        self,
        server_round: int,  # noqa: ARG002 -- the Protocol's
        current: list[Array],  # noqa: ARG002 -- the Protocol's
        contributions: Sequence[Contribution],
    ) -> list[Array]:
        """Return the sum of all contributions, block by block."""
        headers = [header_of(one.parameters) for one in contributions]
        if len({(header.layout, header.values) for header in headers}) > 1:
            raise ValueError("the nodes encrypted models of different layouts")
        examples = sum(one.examples for one in contributions)
        if not examples:
            raise ValueError("no node names any examples to weight its contribution by")
        sums = chain.from_iterable(
            self._sums([one.parameters[block] for one in contributions])
            for block in range(1, len(contributions[0].parameters))
        )
        return pack(headers[0].model_copy(update={"examples": examples}), sums)

    def state(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""

    def _sums(self, blocks: list[Array]) -> Iterator[bytes]:
        for ciphertexts in zip(*map(ciphertexts_of, blocks), strict=True):
            yield self._adder.add(ciphertexts)

    def _check(self, contribution: Contribution, current: list[Array]) -> None:
        header = header_of(contribution.parameters)
        if contribution.examples != header.examples:
            raise ValueError(f"it names {contribution.examples} examples, and its ciphertexts {header.examples}")
        if header.key != self._key.key_id:
            raise ValueError(f"it is encrypted with key {header.key}, the federation's is {self._key.key_id}")
        if header.values != (known := self._values(current)):
            raise ValueError(f"it has {header.values} values, the model has {known}")
        # Blocks are added one by one: each must hold as many ciphertexts as that of every other node.
        due = header.blocks(self._key.parameters.slots)
        found = [self._counted(block) for block in contribution.parameters[1:]]
        if found != due:
            raise ValueError(f"its blocks have {found} ciphertexts, not {due}")

    def _counted(self, block: Array) -> int:
        count = 0
        for ciphertext in ciphertexts_of(block):
            self._adder.check(ciphertext)
            count += 1
        return count

    def _values(self, current: list[Array]) -> int:
        return header_of(current).values if is_encrypted(current) else size_of(current)


class HomomorphicAggregation:
    """Homomorphic encryption: adds updates that it cannot read (``homomorphic``)."""

    @hookimpl
    def locex_config_model(self) -> type[HomomorphicConfig]:
        """Return `HomomorphicConfig`."""
        return HomomorphicConfig

    @hookimpl
    def locex_create_aggregation(self, config: HomomorphicConfig) -> OpaqueAggregation:
        """Return the sum, with the public half of the key."""
        key = public_key(config)
        from locex_privacy.homomorphic.ckks import Adder

        return EncryptedSum(key, Adder(key.content, key.parameters))
