"""What a loaded artefact is to a session, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from locex.api import ModelSignature, TensorSpec
from locex.artefacts.manifest import Manifest
from locex.errors import InvalidModel, LocexError
from locex_keras_builder.kerases import Keras, quiet


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with the Keras that it is of, and its manifest if it is an architecture by name."""

    model: Any
    keras: Keras
    signature: ModelSignature
    manifest: Manifest | None


def signed(model: Any, keras: Keras, manifest: Manifest | None = None) -> LoadedModel:
    """Return a model with its signature; raise `InvalidModel` where it has not one input and one output."""
    ends = [list(getattr(model, side, None) or []) for side in ("inputs", "outputs")]
    if [len(end) for end in ends] != [1, 1]:
        raise InvalidModel(
            f"the model has {len(ends[0])} inputs and {len(ends[1])} outputs that are known",
            remedy="upload a Sequential or functional model with one keras.Input and one output",
        )
    specs = [TensorSpec(tuple(end[0].shape[1:]), _name_of(end[0].dtype)) for end in ends]
    return LoadedModel(model, keras, ModelSignature(*specs), manifest)


def _name_of(dtype: Any) -> str:
    return str(getattr(dtype, "name", dtype))


@contextmanager
def loading(message: str, remedy: str) -> Iterator[None]:
    """Turn what Keras raises about a model into `InvalidModel`; lack of memory stays what it is."""
    try:
        with quiet():
            yield
    except (LocexError, MemoryError):
        raise
    except Exception as error:  # a damaged file can make Keras' readers raise anything
        raise InvalidModel(f"{message}: {str(error)[:1000]}", remedy=remedy) from error
