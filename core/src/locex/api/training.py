"""Models and the sessions that train them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from locex.api.data import LocalData
from locex.api.values import Array, Parameters

if TYPE_CHECKING:
    from locex.schemas.job import TrainConfig, WarmupConfig
    from locex.schemas.model import ModelMetadata


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a model: sizes without the axis of examples (None: any), and the NumPy name of its type."""

    size: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """What a model takes and gives; a part that the artefact does not tell is None and is not compared."""

    input: TensorSpec | None
    output: TensorSpec | None


@dataclass(frozen=True, slots=True)
class ModelArtefact:
    """A model's bytes as a file on this machine, with the metadata and the sha256 that belong to them."""

    path: Path
    metadata: ModelMetadata
    digest: str


@dataclass(frozen=True, slots=True)
class BuildContext:
    """All that a builder needs for one training.

    ``optimizer(target)`` and ``scheduler(target)`` call the chosen plugins; the builder says what the target is
    (PyTorch: the model's parameters, and the optimizer). ``warmup_scheduler`` is the scheduler that follows a
    warm-up. ``architecture(name, fields, seed)`` makes a model by the name of an installed architecture, with weights
    drawn from the artefact's seed, or from the job's where it is None. ``should_stop`` is asked between batches; a
    session that sees True raises `Stopped`. ``warn`` puts a sentence among the warnings of the job's record: an
    option that this machine cannot honour, say. ``allow_programs`` says whether the site takes artefacts that are
    programs (`locex.artefacts.programs`).
    """

    artefact: ModelArtefact
    data: LocalData
    num_classes: int | None
    config: TrainConfig
    optimizer: Callable[[Any], Any]
    scheduler: Callable[[Any], Any] | None
    warmup: WarmupConfig | None
    warmup_scheduler: Callable[[Any], Any] | None
    architecture: Callable[[str, Mapping[str, Any], int | None], Any]
    threads: int
    seed: int
    should_stop: Callable[[], bool] = lambda: False
    warn: Callable[[str], None] = lambda _: None
    allow_programs: bool = True


class Stopped(Exception):
    """Raised out of a session or a federation when the job is stopped."""


@dataclass(frozen=True, slots=True)
class FitResult:
    """What training gave: ``examples`` seen per epoch, and loss and metrics on them (``loss``, ``accuracy``, …)."""

    examples: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Loss and metrics on the local test data."""

    loss: float
    examples: int
    metrics: dict[str, float]


class TrainingSession(Protocol):
    """A model with its data, alive for the whole training. Knows nothing of federations.

    Created by ``locex_create_builder``, which loads the model, places the data and makes the optimizer once.
    """

    signature: ModelSignature

    def get_parameters(self) -> Parameters:
        """Return copies of the model's tensors by name, in the model's order."""

    def set_parameters(self, parameters: Parameters) -> None:
        """Set every tensor, cast to its own dtype; names and shapes have been checked."""

    def fit(self, config: TrainConfig, *, server_round: int, proximal_mu: float = 0.0) -> FitResult:
        """Train as ``config`` says, from the parameters that are set; ``proximal_mu`` is FedProx's term."""

    def evaluate(self, config: TrainConfig) -> Evaluation:
        """Evaluate on the test data."""

    def save_state(self, folder: Path) -> None:
        """Write the state of optimizer, scheduler and warm-up (safetensors, JSON), not the parameters."""

    def load_state(self, folder: Path) -> None:
        """Take up what `save_state` wrote."""

    def export(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """Write the model as an artefact that this builder loads again, and in the further formats asked for.

        The first path is the artefact. The builder's own configuration has refused formats that it does not have.
        """


@dataclass(frozen=True, slots=True)
class Differentiable:
    """What a `PrivateSession` trains, as its framework has it.

    ``framework`` is the import name of the library that ``model`` and ``weights`` are of: ``torch``, ``keras``, ….
    Gradients are wanted of ``weights``, in this order. ``loss(outputs, targets)`` is the mean loss of a batch, without
    penalties of weights. ``sample()`` gives inputs and targets of two training examples, or of one where there is one.
    """

    framework: str
    model: Any
    weights: Sequence[Any]
    loss: Callable[[Any, Any], Any]
    examples: int
    sample: Callable[[], tuple[Any, Any]]


class GradientSource(Protocol):
    """Chooses the examples of every step, and makes its gradients: a mechanism's part in a `PrivateSession`.

    Batches are of any size. Gradients are of the session's framework, one for each of `Differentiable.weights`.
    """

    def epoch(self, config: TrainConfig) -> Iterator[Array]:
        """Yield the indices of each step's training examples; an array may be empty. Called once an epoch."""

    def gradients(self, inputs: Any, targets: Any) -> tuple[Any, Any, Sequence[Any]]:
        """Return mean loss, outputs and gradients; the model is in the mode of training, and is left unchanged."""

    def gradients_of_nothing(self) -> Sequence[Any]:
        """Return the gradients of a step without examples, which is a step all the same."""


@runtime_checkable
class PrivateSession(TrainingSession, Protocol):
    """A session whose batches and gradients a privacy mechanism can make (DP-SGD, Abadi et al. 2016).

    What is left to the session sees private gradients only: the optimizer, FedProx's term, penalties of weights, bounds
    of gradients. Nothing else of training may depend on the training data: no schedule that watches them.
    """

    def differentiable(self) -> Differentiable:
        """Return what is trained."""

    def take_gradients_from(self, source: GradientSource) -> None:
        """Take batches and gradients of every later fit from ``source``; called once, before the first.

        Augment each example by itself. Raise `InvalidConfiguration` for options that do not go with it.
        """
