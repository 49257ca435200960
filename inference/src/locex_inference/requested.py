"""How a request wants each output: its values or its best classes, in the response or in shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from locex_inference.classification import class_count_of, classify
from locex_inference.errors import InvalidInference
from locex_inference.shared_memory import Part, part_of

if TYPE_CHECKING:
    from locex.api import Array


@dataclass(frozen=True, slots=True)
class Requested:
    """One output: ``classes`` of it (0: its values), written to ``part`` of shared memory (None: sent)."""

    classes: int = 0
    part: Part | None = None

    def form(self, array: Array, output: str) -> Array:
        """Return the output as it was asked for."""
        return classify(array, self.classes, output) if self.classes else array


PLAIN = Requested()


def requested(parameters: Mapping[str, Any], output: str) -> Requested:
    """Return what an output's parameters ask for; raise `InvalidInference`."""
    return Requested(class_count_of(parameters, output), part_of(parameters, output)) if parameters else PLAIN


def deadline_of(parameters: Mapping[str, Any], now: float, deadline: float | None = None) -> float | None:
    """Return the earlier of a deadline and a request's parameter ``timeout``, in microseconds from ``now``."""
    timeout = parameters.get("timeout")
    if timeout is None or timeout == 0:
        return deadline
    if type(timeout) is not int or timeout < 0:
        raise InvalidInference(f"the timeout {timeout!r} is no whole number of microseconds")
    own = now + timeout / 1e6
    return own if deadline is None else min(own, deadline)
