"""Flower's messages answered by a participant: the Message API's records, and classic instructions inside records.

Source: https://flower.ai/docs/framework/ (Message API); record names are the server's and come back in replies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS
from flwr.common.typing import EvaluateRes, FitRes, GetParametersRes
from flwr.compat.common import recorddict_compat as compat

from locex.api import Participant, Scalar
from locex.errors import BadParameters, LocexError
from locex_flower import legacy
from locex_flower.answer import Answer, reason_of
from locex_flower.values import beyond, fit_configuration, scalars

if TYPE_CHECKING:
    from locex.api import Array, Incoming

WEIGHT = "num-examples"
"""The metric by which Flower's strategies weight a reply."""


def trains_beyond(participant: Participant, message: Message) -> bool:
    """Tell whether a message asks for more rounds of training than this node takes part in."""
    config = next(iter(message.content.config_records.values()), ConfigRecord())
    return _kind(message) == "train" and beyond(participant, config)


def failure(message: Message, reason: str) -> Message:
    """Return the reply that servers count as a failure."""
    return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason), reply_to=message)


def answer(participant: Participant, message: Message) -> Answer[Message]:
    """Do what the server asks; a `LocexError` becomes an error reply."""
    if (ins := _legacy(message)) is not None:
        answered = legacy.answer(participant, ins)
        return Answer(Message(_legacy_content(answered.reply), reply_to=message), answered.fatal)
    try:
        return Answer(Message(_result(participant, message), reply_to=message))
    except LocexError as error:
        return Answer.refusal(failure(message, reason_of(error)), error)


def _result(participant: Participant, message: Message) -> RecordDict:
    content = message.content
    kind = _kind(message)
    if kind not in {"train", "evaluate"}:
        raise LocexError(f"this node does not answer messages of type {kind!r}")
    if RECORD_KEY_CONFIGS in content.config_records:
        raise LocexError("the server runs secure aggregation, this node's job does not name secagg")
    name, record = _only_arrays(content)
    arrays = _incoming(record)
    config_name, config = next(iter(content.config_records.items()), ("config", ConfigRecord()))
    configuration = fit_configuration(config)
    if kind == "evaluate":
        evaluation = participant.evaluate(arrays, configuration)
        metrics: dict[str, Scalar] = {"loss": float(evaluation.loss), **evaluation.metrics}
        return _metrics(metrics, evaluation.examples, config_name)
    update = participant.fit(arrays, configuration)
    reply = _metrics(update.metrics, update.examples, config_name)
    reply[name] = _outgoing(update.parameters, list(record))
    return reply


def _kind(message: Message) -> str:
    """Return a message's type without the action that may follow a dot ("train.custom")."""
    return message.metadata.message_type.partition(".")[0]


def _only_arrays(content: RecordDict) -> tuple[str, ArrayRecord]:
    if len(content.array_records) != 1:
        names = ", ".join(content.array_records) or "none"
        raise BadParameters(f"one record of arrays is expected, the message has: {names}")
    return next(iter(content.array_records.items()))


def _numbered(names: list[str]) -> bool:
    """Tell whether names only count tensors, as Flower names those of a list of arrays."""
    return names == [str(index) for index in range(len(names))]


def _incoming(record: ArrayRecord) -> Incoming:
    try:
        arrays = {name: array.numpy() for name, array in record.items()}
    except (TypeError, ValueError, EOFError, OSError) as error:
        raise BadParameters(f"arrays are not in NumPy's format: {error}") from error
    return list(arrays.values()) if _numbered(list(arrays)) else arrays


def _outgoing(parameters: Mapping[str, Array], received: list[str]) -> ArrayRecord:
    if _numbered(received):
        named = {str(index): array for index, array in enumerate(parameters.values())}
    elif set(received) == set(parameters):
        named = {name: parameters[name] for name in received}
    else:  # a mechanism made something else of them
        named = dict(parameters)
    return ArrayRecord({name: FlowerArray(np.asarray(array)) for name, array in named.items()})


def _metrics(metrics: Mapping[str, Scalar], examples: int, config_name: str) -> RecordDict:
    """Numbers go into the record of metrics, which averages; texts and bytes beside it."""
    kept = scalars(metrics)
    numbers = {key: int(value) if isinstance(value, bool) else value for key, value in kept.items()}
    texts = {key: numbers.pop(key) for key, value in kept.items() if isinstance(value, str | bytes)}
    reply = RecordDict({"metrics": MetricRecord({**numbers, WEIGHT: examples})})  # type: ignore[dict-item]
    if texts:
        reply[config_name] = ConfigRecord(texts)  # type: ignore[arg-type]
    return reply


def _legacy(message: Message) -> legacy.Ins | None:
    content = message.content
    if "fitins.parameters" in content:
        return compat.recorddict_to_fitins(content, keep_input=False)
    if "evaluateins.parameters" in content:
        return compat.recorddict_to_evaluateins(content, keep_input=False)
    if "getparametersins.config" in content:
        return compat.recorddict_to_getparametersins(content)
    if "getpropertiesins.config" in content:
        return compat.recorddict_to_getpropertiesins(content)
    return None


def _legacy_content(res: legacy.Res) -> RecordDict:
    if isinstance(res, FitRes):
        return compat.fitres_to_recorddict(res, keep_input=False)
    if isinstance(res, EvaluateRes):
        return compat.evaluateres_to_recorddict(res)
    if isinstance(res, GetParametersRes):
        return compat.getparametersres_to_recorddict(res, keep_input=False)
    return compat.getpropertiesres_to_recorddict(res)
