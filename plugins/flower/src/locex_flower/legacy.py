"""Flower's classic instructions (FitIns, EvaluateIns, …) answered by a participant.

The classic gRPC channel carries them as they are, a SuperLink inside records (``fitins.parameters``, …). Tensors have
no names here, only their order.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from flwr.common.typing import (
    Code,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Parameters,
    Status,
)

from locex.api import Participant
from locex.errors import BadParameters, LocexError
from locex_flower.answer import Answer, reason_of
from locex_flower.values import fit_configuration, scalars

if TYPE_CHECKING:
    from locex.api import Array

Ins: TypeAlias = FitIns | EvaluateIns | GetParametersIns | GetPropertiesIns
Res: TypeAlias = FitRes | EvaluateRes | GetParametersRes | GetPropertiesRes

DONE = Status(Code.OK, "")


def answer(participant: Participant, ins: Ins) -> Answer[Res]:
    """Do what the server asks; a `LocexError` becomes a result whose status the server counts as a failure."""
    try:
        return Answer(_result(participant, ins))
    except LocexError as error:
        return Answer.refusal(_failure(ins, reason_of(error)), error)


def _result(participant: Participant, ins: Ins) -> Res:
    if isinstance(ins, FitIns):
        update = participant.fit(_arrays(ins.parameters), fit_configuration(ins.config))
        return FitRes(DONE, _parameters(update.parameters.values()), update.examples, scalars(update.metrics))
    if isinstance(ins, EvaluateIns):
        evaluation = participant.evaluate(_arrays(ins.parameters), fit_configuration(ins.config))
        return EvaluateRes(DONE, float(evaluation.loss), evaluation.examples, scalars(evaluation.metrics))
    if isinstance(ins, GetParametersIns):
        return GetParametersRes(DONE, _parameters(participant.parameters().values()))
    return GetPropertiesRes(DONE, {})


def _failure(ins: Ins, reason: str) -> Res:
    # Flower's codes know no other failure than "not implemented"; servers only ask whether the code is OK.
    if isinstance(ins, FitIns):
        return FitRes(Status(Code.FIT_NOT_IMPLEMENTED, reason), _parameters(()), 0, {})
    if isinstance(ins, EvaluateIns):
        return EvaluateRes(Status(Code.EVALUATE_NOT_IMPLEMENTED, reason), float("nan"), 0, {})
    return GetParametersRes(Status(Code.GET_PARAMETERS_NOT_IMPLEMENTED, reason), _parameters(()))


def _arrays(parameters: Parameters) -> list[Array]:
    try:
        return [np.load(BytesIO(tensor), allow_pickle=False) for tensor in parameters.tensors]
    except (ValueError, EOFError, OSError) as error:
        raise BadParameters(f"tensors are not in NumPy's format: {error}") from error


def _parameters(arrays: Iterable[Array]) -> Parameters:
    return Parameters([_bytes(array) for array in arrays], "numpy.ndarray")


def _bytes(array: Array) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
