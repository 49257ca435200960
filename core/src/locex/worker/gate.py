"""The gate that weights from the federation pass before they touch the model."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from locex.api import Array, Incoming, Parameters
from locex.errors import BadParameters


def admit(incoming: Incoming, reference: Parameters, *, max_norm: float) -> Parameters:
    """Return what arrived by the model's names and in the model's types, or raise `BadParameters`.

    Count (or names), shapes, kinds of element, finiteness and the L2 norm over all float tensors are checked.
    Integer buffers may arrive as floats, since averaging makes them so; a float tensor never arrives as integers.
    """
    named = _named(incoming, reference)
    admitted = {name: _tensor(name, named[name], expected) for name, expected in reference.items()}
    if fault := _too_long(admitted, max_norm):
        raise _refused(*fault)
    return admitted


def norm_of(parameters: Parameters) -> float:
    """Return the L2 norm over all float tensors."""
    floats = (tensor for tensor in parameters.values() if tensor.dtype.kind == "f")
    flat = (tensor.astype(np.float64, copy=False).ravel() for tensor in floats)
    return math.sqrt(sum(float(np.dot(values, values)) for values in flat))


def require_sound(parameters: Parameters, what: str, *, max_norm: float) -> None:
    """Raise `BadParameters` for what no other node would take: a float that is not finite, too large a norm."""
    for name, tensor in parameters.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise _refused(f"{what}: {name} holds NaN or infinity")
    if fault := _too_long(parameters, max_norm):
        reason, figure = fault
        raise _refused(f"{what}: {reason}", figure)


def _too_long(parameters: Parameters, max_norm: float) -> tuple[str, str] | None:
    """Return what is wrong, and the figure: it may be of weights that the server must not read."""
    norm = norm_of(parameters)
    if norm <= max_norm:
        return None
    return f"the weights have a norm of more than {max_norm:.3g} (LOCEX_MAX_UPDATE_NORM)", f"it is {norm:.3g}"


def _named(incoming: Incoming, reference: Parameters) -> Mapping[str, Array]:
    if isinstance(incoming, Mapping) and incoming.keys() == reference.keys():
        return incoming
    # A stock server may rename tensors (Flower numbers them); their order is then what counts.
    tensors = list(incoming.values()) if isinstance(incoming, Mapping) else list(incoming)
    if len(tensors) != len(reference):
        raise _refused(f"{len(tensors)} tensors arrived, the model has {len(reference)}")
    return dict(zip(reference, tensors, strict=True))


def _tensor(name: str, arrived: Array, expected: Array) -> Array:
    if arrived.shape != expected.shape:
        raise _refused(f"{name} has the shape {list(arrived.shape)}, the model's is {list(expected.shape)}")
    if arrived.dtype.kind not in "fiub" or (expected.dtype.kind == "f" and arrived.dtype.kind != "f"):
        raise _refused(f"{name} has the type {arrived.dtype}, the model's is {expected.dtype}")
    if arrived.dtype.kind == "f" and not np.isfinite(arrived).all():
        raise _refused(f"{name} holds NaN or infinity")
    integral = expected.dtype.kind in "iub"
    if integral and arrived.dtype.kind == "f":
        arrived = np.asarray(np.rint(arrived))
    with np.errstate(over="ignore", invalid="ignore"):
        cast: Array = arrived.astype(expected.dtype)
    if not (np.array_equal(cast, arrived) if integral else np.isfinite(cast).all()):
        raise _refused(f"{name} does not fit into {expected.dtype}")
    return cast


def _refused(reason: str, figure: str = "") -> BadParameters:
    return BadParameters(
        f"weights were refused: {reason}",
        private=figure,
        remedy="check the server's model and strategy; the node keeps its last good weights",
    )
