"""What leaves a node, and the mechanisms that protect it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from locex.api.training import TrainingSession
from locex.api.values import Incoming, Parameters, Scalar

if TYPE_CHECKING:
    from locex.schemas.job import JobConfiguration, TrainConfig
    from locex.schemas.plugin import PluginConfig


class Stage(IntEnum):
    """When a mechanism acts on what is sent; mechanisms are applied in this order, not in the order of JSON keys."""

    TRAIN = 10
    NOISE = 20
    COMPRESS = 30
    ENCRYPT = 40


@dataclass(frozen=True, slots=True)
class Update:
    """What is about to be sent after a fit.

    ``parameters`` are the new weights, or what a mechanism made of them; ``reference`` are the global weights that
    training began with (after `PrivacyMechanism.incoming`). ``examples`` is the weight in averages.
    """

    parameters: Parameters
    reference: Parameters
    examples: int
    metrics: dict[str, Scalar]


class Ledger(Protocol):
    """The privacy ledger of one data set and one unit of privacy; it outlives jobs, restarts and crashes.

    ``append`` is atomic across all jobs: it succeeds only if the ledger still has the version that was read.
    """

    def read(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the version and every mechanism event charged so far."""

    def append(self, version: int, event: dict[str, Any]) -> bool:
        """Charge an event if the version is still current; False: read again. Charged before the data is touched."""


@dataclass(frozen=True, slots=True)
class PrivacyContext:
    """What a mechanism may know: the operator's name of the data set, and ledgers by unit ("example", "client")."""

    dataset: str
    ledger: Callable[[str], Ledger]
    epsilon_spent: Callable[[str, float], None]
    """Report the ε spent so far of a unit; it goes into the job's record."""
    trainings: Sequence[TrainConfig] = ()
    """The job's entries, of which `locex.schemas.job.chosen_training` is one round's."""
    rounds: int | None = None
    """The most rounds that the job takes part in, where it says so."""
    learned: Sequence[str] = ()
    """Steps of the pipeline that learned from the training data: what they make of one example depends on all."""


@dataclass(frozen=True, slots=True)
class PrivacyReview:
    """What a mechanism may know of the job that names it, before anything runs.

    ``mechanisms`` are the valid configurations of all of the job's mechanisms by name, its own included; ``plugins``
    those of the other plugins by role (``builder``, ``optimizer``, ``scheduler``, ``warmup_scheduler``, …).
    """

    mechanisms: Mapping[str, PluginConfig]
    federation: str
    library: str
    plugins: Mapping[str, PluginConfig] = field(default_factory=dict)
    job: JobConfiguration | None = None


class PrivacyMechanism(Protocol):
    """Protects what leaves the node. Created by ``locex_create_privacy``."""

    stage: Stage
    withholds_metrics: bool
    """Whether losses, metrics and counts must not leave beside the weights."""

    def requires(self, federation: str) -> None:
        """Raise `PrivacyRefused` if this federation's wire cannot carry the mechanism."""

    def prepare(self, session: TrainingSession) -> None:
        """Change the session before its first round, if need be."""

    def before_fit(self, config: Mapping[str, Scalar]) -> None:
        """Reserve the privacy budget of the coming round; raise `PrivacyRefused` where it would be passed."""

    def incoming(self, parameters: Incoming, config: Mapping[str, Scalar]) -> Incoming:
        """Undo on what arrived what the collector's half did, e.g. decrypt."""

    def outgoing(self, update: Update, config: Mapping[str, Scalar]) -> Update:
        """Return the update as it may leave."""

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes after a restart: JSON, which may hold NumPy arrays."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
