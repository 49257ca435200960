"""A named architecture with safetensors weights: the artefact of `locex.artefacts.manifest`."""

from __future__ import annotations

import json
import zipfile
from functools import partial
from typing import Any

import safetensors.numpy
from safetensors import SafetensorError

from locex.api import LoadContext
from locex.artefacts.architecture import create
from locex.artefacts.archive import MAX_BYTES, read_entry
from locex.artefacts.manifest import WEIGHTS, read_manifest, require_fitting
from locex.errors import InvalidModel
from locex_keras_builder.dry import declared_elements, require_backed
from locex_keras_builder.kerases import import_keras
from locex_keras_builder.model import LoadedModel, signed
from locex_keras_builder.variables import assign, named_weights, read


def load_architecture(archive: zipfile.ZipFile, context: LoadContext) -> LoadedModel:
    """Make the model that the manifest names, with the weights of the archive if it holds any."""
    manifest = read_manifest(archive, "keras")
    keras = import_keras("keras")
    weights = _read_weights(read_entry(archive, WEIGHTS)) if WEIGHTS in archive.namelist() else None
    stored = MAX_BYTES // 4 if weights is None else sum(array.size for array in weights.values())
    make = partial(create, manifest, context)
    require_backed(declared_elements(keras, make), stored)
    model = make()
    if weights is not None:
        named = named_weights(model)
        require_fitting(
            {name: tuple(weight.shape) for name, weight in named.items()},
            {name: array.shape for name, array in weights.items()},
        )
        assign(named, weights)
    return signed(model, keras, manifest)


def weights_of(model: Any) -> bytes:
    """Return every tensor of ``model.weights`` as safetensors."""
    weights = read(named_weights(model))
    # safetensors sorts by name; the classic wire of federations knows tensors by the model's order only
    return safetensors.numpy.save(weights, metadata={"names": json.dumps(list(weights))})


def _read_weights(content: bytes) -> dict[str, Any]:
    try:
        return safetensors.numpy.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InvalidModel(f"{WEIGHTS} is corrupt: {error}", remedy="upload the artefact again") from error
