"""Running a batch of requests: pipelines per request, the model once for all. Runs in the loop or in any thread."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from locex.errors import LocexError
from locex_inference.engine.ticket import Ticket
from locex_inference.errors import InferenceError, ModelFailed
from locex_inference.models.version import ModelVersion

if TYPE_CHECKING:
    from locex.api import Array

    Result = dict[str, Array] | Exception

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What a batch gave: outputs or an error for each ticket, and `time.perf_counter_ns` between the phases."""

    results: list[Result]
    began: int
    prepared: int
    inferred: int
    ended: int


def execute(version: ModelVersion, batch: Sequence[Ticket]) -> Outcome:
    """Answer a batch; an error of the model for several is tried again for each, so that none fails for another."""
    began = time.perf_counter_ns()
    faults = _prepare(version, batch)
    prepared = time.perf_counter_ns()
    raw = _infer(version, _ready(batch, faults))
    inferred = time.perf_counter_ns()
    results = _finish(version, batch, faults, raw)
    return Outcome(results, began, prepared, inferred, time.perf_counter_ns())


async def execute_remote(version: ModelVersion, batch: Sequence[Ticket]) -> Outcome:
    """Answer a batch with an inferencer in another process; pipelines run in a thread."""
    began = time.perf_counter_ns()
    faults = [None] * len(batch) if version.preprocess is None else await asyncio.to_thread(_prepare, version, batch)
    prepared = time.perf_counter_ns()
    raw = await _ainfer(version, _ready(batch, faults))
    inferred = time.perf_counter_ns()
    if version.postprocess is None:
        results = _finish(version, batch, faults, raw)
    else:
        results = await asyncio.to_thread(_finish, version, batch, faults, raw)
    return Outcome(results, began, prepared, inferred, time.perf_counter_ns())


def _ready(batch: Sequence[Ticket], faults: Sequence[Exception | None]) -> Sequence[Ticket]:
    """Return the tickets whose preprocessing did not fail."""
    if not any(faults):
        return batch
    return [ticket for ticket, fault in zip(batch, faults, strict=True) if fault is None]


def _finish(
    version: ModelVersion, batch: Sequence[Ticket], faults: Sequence[Exception | None], raw: Sequence[Result]
) -> list[Result]:
    answers = iter(raw)
    return [
        finish(version, ticket, next(answers)) if fault is None else fault
        for ticket, fault in zip(batch, faults, strict=True)
    ]


def _prepare(version: ModelVersion, batch: Sequence[Ticket]) -> list[Exception | None]:
    """Preprocess each request; return its error, or None."""
    pipeline = version.preprocess
    if pipeline is None:
        return [None] * len(batch)
    results: list[Exception | None] = []
    for ticket in batch:
        try:
            ticket.inputs = pipeline(ticket.request.inputs, ticket.values)
            results.append(None)
        except Exception as error:  # noqa: BLE001 -- a step may raise anything
            results.append(told(version, error, "preprocessing"))
    return results


def finish(version: ModelVersion, ticket: Ticket, outputs: Result) -> Result:
    """Postprocess what the model gave for one request and keep the outputs that it wants."""
    if isinstance(outputs, Exception):
        return outputs
    try:
        if version.postprocess is not None:
            outputs = version.postprocess(outputs, ticket.values)
        if wanted := ticket.request.outputs:
            return {name: outputs[name] for name in wanted}
    except Exception as error:  # noqa: BLE001 -- a step may raise anything
        return told(version, error, "postprocessing")
    return outputs


def wanted_of(version: ModelVersion, ticket: Ticket) -> tuple[str, ...]:
    """Return the outputs to ask the model for."""
    if version.postprocess is None and ticket.request.outputs:
        return ticket.request.outputs
    return tuple(info.name for info in version.inferencer.outputs)


def _infer(version: ModelVersion, batch: Sequence[Ticket]) -> list[Result]:
    if not batch:
        return []
    try:
        if len(batch) == 1:
            return [version.inferencer.run(batch[0].inputs, wanted_of(version, batch[0]))]
        return split(version.inferencer.run(joined(batch), wanted_of(version, batch[0])), batch)
    except Exception as error:  # noqa: BLE001 -- a model may raise anything
        if len(batch) == 1:
            return [told(version, error, "the model")]
    return [_infer(version, [ticket])[0] for ticket in batch]


async def _ainfer(version: ModelVersion, batch: Sequence[Ticket]) -> list[Result]:
    if not batch:
        return []
    run = getattr(version.inferencer, "arun")  # noqa: B009 -- RemoteInferencer's, as in_process says
    try:
        if len(batch) == 1:
            return [await run(batch[0].inputs, wanted_of(version, batch[0]))]
        return split(await run(joined(batch), wanted_of(version, batch[0])), batch)
    except Exception as error:  # noqa: BLE001 -- a model may raise anything
        if len(batch) == 1:
            return [told(version, error, "the model")]
    return [(await _ainfer(version, [ticket]))[0] for ticket in batch]


def joined(batch: Sequence[Ticket]) -> dict[str, Array]:
    """Return the inputs of several requests, one after the other along the axis of examples."""
    return {name: np.concatenate([ticket.inputs[name] for ticket in batch]) for name in batch[0].inputs}


def split(outputs: dict[str, Array], batch: Sequence[Ticket]) -> list[Result]:
    """Return each request's part; raise `ModelFailed` where the outputs do not have the examples that went in."""
    total = sum(ticket.rows for ticket in batch)
    for name, array in outputs.items():
        if not array.ndim or len(array) != total:
            raise ModelFailed(f"the output {name!r} of {total} joined examples has the shape {list(array.shape)}")
    parts: list[Result] = []
    begin = 0
    for ticket in batch:
        end = begin + ticket.rows
        parts.append({name: array[begin:end] for name, array in outputs.items()})
        begin = end
    return parts


def told(version: ModelVersion, error: Exception, what: str) -> Exception:
    """Return the error for the caller; what is not made for callers is logged too."""
    if isinstance(error, InferenceError):
        return error
    if isinstance(error, LocexError):
        return ModelFailed(f"{version.name!r} version {version.version!r}: {error.message}", remedy=error.remedy)
    logger.warning("%s of %s version %s raised", what, version.name, version.version, exc_info=error)
    reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return ModelFailed(f"{what} of {version.name!r} version {version.version!r} raised {reason}")
