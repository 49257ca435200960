"""What an evaluation found of two versions, and whether the new one may serve."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel

from locex.api import TensorInfo


class Tensor(BaseModel):
    """A tensor of a model as JSON."""

    name: str
    datatype: str
    shape: list[int]

    @classmethod
    def of(cls, info: TensorInfo) -> Tensor:
        """Return a tensor's description."""
        return cls(name=info.name, datatype=info.datatype, shape=list(info.shape))


class Score(BaseModel):
    """How good a model is on the examples: accuracy of classes (more is better), or mean squared error (less is)."""

    measure: Literal["accuracy", "mean squared error"]
    value: float

    def __str__(self) -> str:
        return f"{self.measure} {self.value:.6g}"


class Findings(BaseModel):
    """One model: what it takes and gives, whether its answers were finite, and its score where there were examples."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    finite: bool
    score: Score | None = None


class Report(BaseModel):
    """What the evaluation process found; ``note`` says why there are no scores."""

    candidate: Findings
    served: Findings | None = None
    examples: int = 0
    note: str = ""


def refusal(report: Report, *, margin: float, required: bool) -> str:
    """Return why the candidate must not serve, or an empty string."""
    candidate, served = report.candidate, report.served
    if not candidate.finite:
        return "its answers are not all finite"
    if served is not None and (difference := _differs(candidate, served)):
        return difference
    if candidate.score is None:
        return f"it could not be evaluated on local data: {report.note}" if required else ""
    if not math.isfinite(candidate.score.value):
        return f"its {candidate.score.measure} on {report.examples} local test examples is not finite"
    if served is None or served.score is None or not _worse(candidate.score, served.score, margin):
        return ""
    return (
        f"{candidate.score} on {report.examples} local test examples is worse than the served version's "
        f"{served.score.value:.6g} by more than the margin of {margin:g}"
    )


def _worse(candidate: Score, served: Score, margin: float) -> bool:
    if candidate.measure == "accuracy":
        return candidate.value < served.value - margin
    return candidate.value > served.value * (1 + margin)


def _differs(candidate: Findings, served: Findings) -> str:
    """Return how a model differs from the served one for its callers: a tensor's name, type, rank or size."""
    for side in ("inputs", "outputs"):
        ours: list[Tensor] = getattr(candidate, side)
        theirs: list[Tensor] = getattr(served, side)
        if [_told(one) for one in ours] != [_told(one) for one in theirs]:
            return f"its {side} are {_listed(ours)}, those of the served version {_listed(theirs)}"
    return ""


def _told(tensor: Tensor) -> tuple[str, str, list[int]]:
    return tensor.name, tensor.datatype, tensor.shape[1:]


def _listed(tensors: list[Tensor]) -> str:
    return ", ".join(f"{tensor.name} {tensor.datatype} {tensor.shape}" for tensor in tensors)
