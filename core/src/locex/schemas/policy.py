"""The site's policy: what a job must bring before it may train on the local data."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from locex.schemas.base import Configuration
from locex.schemas.job import JobConfiguration
from locex.schemas.model import Name


class Requirement(Configuration):
    """A privacy mechanism, with bounds on its fields."""

    mechanism: str = Field(description="A name of the group locex.privacy.")
    at_most: dict[str, float] = Field(
        default_factory=dict,
        description='Largest values of its fields: {"max_epsilon": 8}; switches are 0 or 1. Absent is too large.',
    )
    at_least: dict[str, float] = Field(
        default_factory=dict, description="Smallest values of its fields. An absent field is too small."
    )

    def shortfall(self, fields: dict[str, Any] | None) -> str:
        """Return how a mechanism's fields (None: the job does not name it) fall short, or an empty string."""
        if fields is None:
            return f"{self.mechanism} is missing"
        short = [
            f"{self.mechanism}.{name} is {fields.get(name, 'absent')}, {word} {bound:g} is asked"
            for word, bounds in (("at most", self.at_most), ("at least", self.at_least))
            for name, bound in bounds.items()
            if not _within(fields.get(name), bound, largest=word == "at most")
        ]
        return "; ".join(short)


class Rule(Configuration):
    """What every job must keep to."""

    name: Name = Field(description="Told to whoever posts a job that breaks the rule.")
    datasets: list[str] = Field(
        default_factory=list, description="Data sets by the operator's name (LOCEX_DATASET); empty: all."
    )
    require: list[Requirement] = Field(default_factory=list, description="Mechanisms of which a job brings one.")
    forbid: list[str] = Field(default_factory=list, description="Mechanisms that a job must not name.")
    min_examples: int = Field(default=0, ge=0, description="Training examples that the node must have.")

    def breach(self, job: JobConfiguration) -> str:
        """Return how a job breaks the rule, or an empty string."""
        mechanisms = job.privacy_mechanisms
        forbidden = [name for name in self.forbid if name in mechanisms]
        if forbidden:
            return f"{', '.join(forbidden)} must not be used"
        shortfalls = [one.shortfall(mechanisms.get(one.mechanism)) for one in self.require]
        return "" if "" in shortfalls or not shortfalls else " and ".join(shortfalls)


class Policy(Configuration):
    """All rules of a site; each must be kept."""

    closed: bool = Field(
        default=False,
        description="Refuse jobs for which no rule requires a mechanism, and mechanisms that no rule requires.",
    )
    rules: list[Rule] = Field(default_factory=list, description="The rules.")

    def about(self, dataset: str) -> list[Rule]:
        """Return the rules that hold for a data set."""
        return [rule for rule in self.rules if not rule.datasets or dataset in rule.datasets]


def _within(value: Any, bound: float, *, largest: bool) -> bool:
    if not isinstance(value, int | float):  # a switch counts as 0 or 1
        return False
    return value <= bound if largest else value >= bound
