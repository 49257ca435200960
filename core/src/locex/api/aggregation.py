"""The collector's half: what turns contributions into the next global parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from locex.api.privacy import Stage
from locex.api.values import Array, Scalar


@dataclass(frozen=True, slots=True)
class Contribution:
    """One node's update as it arrived: parameters in order, the number of examples it names, its metrics."""

    parameters: list[Array]
    examples: int
    metrics: dict[str, Scalar]


class Aggregation(Protocol):
    """Turns contributions into the next global parameters. Created by ``locex_create_aggregation``."""

    def configure(self, server_round: int) -> dict[str, Scalar]:
        """Return what nodes must be told with the fit instruction of this round."""

    def aggregate(self, server_round: int, current: list[Array], contributions: Sequence[Contribution]) -> list[Array]:
        """Return the new global parameters; ``contributions`` is not empty, shapes and finiteness are checked.

        Raise `ValueError` for contributions that do not go together: the attempt at the round does not count. What is
        left in their ``metrics`` is averaged for the round's report: take out what must not be told.
        """

    def state(self) -> dict[str, Any]:
        """Return what a restarted collector needs beside the parameters; arrays as NumPy arrays, the rest JSON."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""


@runtime_checkable
class ContributionDecoder(Protocol):
    """The collector's half of a mechanism that only writes updates in another form, e.g. compression.

    Created by ``locex_create_aggregation`` in place of an `Aggregation`; decoders act on what arrives before it is
    checked and aggregated, in the reverse order of their mechanisms' stages.
    """

    stage: Stage
    """That of its half at the nodes."""

    def decode(self, contribution: Contribution, current: list[Array]) -> Contribution:
        """Return the contribution with parameters in the shapes of ``current``; raise `ValueError` for a bad one."""


@runtime_checkable
class OpaqueAggregation(Aggregation, Protocol):
    """An aggregation of contributions whose tensors are not the model's, e.g. ciphertexts.

    It checks contributions itself, and what it returns becomes the global parameters as it is. It averages by
    examples, as nodes name them. The first global parameters of a training are the model's own all the same.
    """

    def fault_of(self, contribution: Contribution, current: list[Array]) -> str:
        """Return what is wrong with a contribution, or an empty string."""


@runtime_checkable
class PlainMean(Aggregation, Protocol):
    """An aggregation that is no more than the average by examples, since its nodes name one example each.

    It tells nodes nothing and remembers nothing, so that an `OpaqueAggregation` can take its place.
    """

    plain_mean: bool
    """Whether that is so, as configured."""
