"""Models that answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from locex.api.training import BuildContext, ModelArtefact
from locex.api.values import Array
from locex.errors import InvalidModel


def _no_architecture(name: str, _fields: Mapping[str, Any], _seed: int | None) -> Any:
    raise InvalidModel(f"the architecture {name!r} cannot be made here", remedy="export the model as a whole")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor that a model takes or gives.

    ``datatype`` is a name of the Open Inference Protocol (``FP32``, ``INT64``, ``BYTES``, …); ``shape`` has the axis
    of examples, and -1 where a size is free.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InferencerContext:
    """All that an inferencer needs to load one version of a model.

    ``threads`` is how many it may use for one call. ``allow_programs`` says whether the site takes artefacts that are
    programs (`locex.artefacts.programs`). ``architecture(name, fields, seed)`` makes a model by the name of an
    installed architecture, of the library that the artefact's manifest names. ``warn`` puts a sentence into the log.
    """

    artefact: ModelArtefact
    threads: int
    allow_programs: bool = True
    architecture: Callable[[str, Mapping[str, Any], int | None], Any] = _no_architecture
    warn: Callable[[str], None] = lambda _: None


LoadContext: TypeAlias = "BuildContext | InferencerContext"
"""What the loading of an artefact may ask: ``artefact``, ``architecture``, ``allow_programs`` and ``warn``."""


class Inferencer(Protocol):
    """One version of a model, loaded and ready to answer. Created by ``locex_create_inferencer``.

    ``BYTES`` tensors are arrays of Python ``bytes`` objects, ``BF16`` ones have ml_dtypes' ``bfloat16``.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs of these names; names, types and shapes of ``inputs`` have been checked.

        May be called by several threads at once.
        """

    def close(self) -> None:
        """Let go of memory and devices; no call follows."""
