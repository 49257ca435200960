"""The value types and Protocols that hooks receive and return.

Arrays are NumPy's. "Parameters" are a model's named tensors in the model's own order: float weights and integer
buffers alike. This module imports no framework, and NumPy only for type checkers, since services import it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from locex.errors import InvalidModel

if TYPE_CHECKING:
    import numpy as np

    from locex.schemas.data_format import DataFormat
    from locex.schemas.job import JobConfiguration, TrainConfig, WarmupConfig
    from locex.schemas.model import ModelMetadata
    from locex.schemas.plugin import PluginConfig

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Scalar: TypeAlias = "bool | int | float | str | bytes"
Parameters: TypeAlias = "dict[str, Array]"
Incoming: TypeAlias = "Mapping[str, Array] | Sequence[Array]"
"""Parameters as a wire delivers them: by name, or only in order."""


# --- data -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples: ``x`` has shape (n, …), ``y`` has shape (n,) or (n, …)."""

    x: Array
    y: Array

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.x)


Augment: TypeAlias = "Callable[[Dataset, np.random.Generator], Dataset]"
"""The random end of a training pipeline, on one batch."""


@dataclass(frozen=True, slots=True)
class LocalData:
    """The node's data after its source or after a pipeline, with the format that the model sees.

    Arrays may be memory-mapped and larger than memory: index them, do not copy them whole. Where ``augment`` is
    given, ``train`` is as it is before it: sessions call it on every training batch, with a generator of their own
    seed and round.
    """

    train: Dataset
    test: Dataset
    format: DataFormat
    augment: Augment | None = None


class DataSource(Protocol):
    """Local data. Created by ``locex_create_data``."""

    def format(self) -> DataFormat:
        """Return the format of the data without loading all of it; raise `DataUnavailable` where it is missing."""

    def load(self) -> LocalData:
        """Return training and test data with their format."""


@runtime_checkable
class TracedSource(DataSource, Protocol):
    """A source that tells the state of what it reads; prepared data is kept for later jobs under that state.

    Without the method the names, sizes and times of everything in the data folder count.
    """

    def state(self) -> str:
        """Return a text that changes when the data does, without reading all of it: a version, sizes and times."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a step needs of the machine: GiB of memory and storage, a GPU, importable libraries, models of the node.

    ``models`` are written ``name`` or ``name/version``.
    """

    memory: float = 0
    storage: float = 0
    gpu: bool = False
    libraries: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


class Transform(Protocol):
    """One step of a pipeline, on data and on their format. Created by ``locex_create_transform``."""

    needs: Needs

    def transform_data(self, data: Dataset) -> Dataset:
        """Return transformed data; the arrays that came in are read-only.

        Called with some thousand examples at a time: each is transformed on its own account.
        """

    def transform_format(self, data_format: DataFormat) -> DataFormat:
        """Return the format after this step; raise `ValueError` where the step cannot take the format."""


@runtime_checkable
class FittedTransform(Transform, Protocol):
    """A step that learns from the training split before it transforms: a scaler's mean, say."""

    def fit(self, train: Dataset) -> None:
        """Learn from training data, which may be memory-mapped and larger than memory; called once."""


@runtime_checkable
class SavedTransform(FittedTransform, Protocol):
    """A step whose knowledge can be kept with the model, so that serving transforms as the training did.

    Steps that learn, and do not implement it, are fitted anew in every training and cannot be served.
    """

    def state(self) -> dict[str, Array]:
        """Return what was learnt as arrays of numbers by name; called after `fit`."""

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take up what `state` returned, instead of `fit`; raise `ValueError` where it is not of this step."""


@runtime_checkable
class SharingTransform(Transform, Protocol):
    """A step that shares values with others while a model is served: the size of an image before it was resized, say.

    ``values`` belong to one request. Steps before and after the model are given the same dictionary. In trainings
    `transform_data` is called instead.
    """

    def transform_request(self, data: Dataset, values: dict[str, Any]) -> Dataset:
        """Return the data of one request transformed; read and write ``values`` under names of the step's own."""


@runtime_checkable
class RandomTransform(Transform, Protocol):
    """A step that draws: it acts on training batches only, anew in every round, and leaves test data as they are."""

    def transform_batch(self, batch: Dataset, generator: np.random.Generator) -> Dataset:
        """Return the batch transformed with draws from ``generator``."""


@dataclass(frozen=True, slots=True)
class SiteContext:
    """What a data source may know of the site.

    ``cache_folder``, where the site has one, may keep what is made of large files, for later jobs too, and no more
    than ``cache_bytes``; a source removes there nothing but its own. All sources share it.
    """

    data_folder: Path
    seed: int
    cache_folder: Path | None = None
    cache_bytes: int | None = None


# --- models and training ----------------------------------------------------------------------------------------------


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


# --- privacy ----------------------------------------------------------------------------------------------------------


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


# --- federation -------------------------------------------------------------------------------------------------------


class Participant(Protocol):
    """The node as a federation sees it; the worker implements it. Not thread-safe: one call at a time."""

    @property
    def rounds(self) -> int | None:
        """The most rounds this node takes part in, where known."""

    @property
    def complete(self) -> bool:
        """Whether every expected round is over for this node."""

    @property
    def stopping(self) -> bool:
        """Whether the job was asked to stop."""

    def waiting(self, reason: str) -> None:
        """Tell that the node waits for the federation (connecting, connected, retrying in … s)."""

    def parameters(self) -> Parameters:
        """Return the parameters as they are, as far as mechanisms allow."""

    def fit(self, parameters: Incoming, config: Mapping[str, Scalar]) -> Update:
        """Train one round; every call either returns what may be sent or raises."""

    def evaluate(self, parameters: Incoming, config: Mapping[str, Scalar]) -> Evaluation:
        """Evaluate global parameters."""


@dataclass(frozen=True, slots=True)
class FederationContext:
    """Where and how to connect. ``folder`` is the run's own, for keys that must survive a restart.

    ``mechanisms`` are the job's privacy mechanisms in the order in which they act. A federation that is part of one,
    since its protocol with the server protects the updates, finds its half among them; others need not look.
    """

    server_address: str
    folder: Path
    root_certificates: Path | None = None
    insecure: bool = True
    patience: float = 600.0
    """Seconds without progress after which a server that cannot be reached is given up."""
    mechanisms: Sequence[PrivacyMechanism] = ()


class Federation(Protocol):
    """A connection to a federation. Created by ``locex_create_federation``."""

    def run(self, participant: Participant) -> None:
        """Drive the participant until the server ends the training or the participant is complete.

        Reconnects with backoff. Raises `FederationLost` when patience ends, `Stopped` when the job is stopped.
        """


# --- the collector's half ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contribution:
    """One node's update as it arrived: parameters in order, the number of examples it names, its metrics."""

    parameters: list[Array]
    examples: int
    metrics: dict[str, Scalar]


class Aggregation(Protocol):
    """Turns contributions into the next global parameters. Created by ``locex_create_aggregation``."""

    def configure(self, server_round: int) -> dict[str, Scalar]:
        """Return what nodes must be told with the fit instruction of this round."""

    def aggregate(self, server_round: int, current: list[Array], contributions: Sequence[Contribution]) -> list[Array]:
        """Return the new global parameters; ``contributions`` is not empty, shapes and finiteness are checked.

        Raise `ValueError` for contributions that do not go together: the attempt at the round does not count. What is
        left in their ``metrics`` is averaged for the round's report: take out what must not be told.
        """

    def state(self) -> dict[str, Any]:
        """Return what a restarted collector needs beside the parameters; arrays as NumPy arrays, the rest JSON."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""


@runtime_checkable
class ContributionDecoder(Protocol):
    """The collector's half of a mechanism that only writes updates in another form, e.g. compression.

    Created by ``locex_create_aggregation`` in place of an `Aggregation`; decoders act on what arrives before it is
    checked and aggregated, in the reverse order of their mechanisms' stages.
    """

    stage: Stage
    """That of its half at the nodes."""

    def decode(self, contribution: Contribution, current: list[Array]) -> Contribution:
        """Return the contribution with parameters in the shapes of ``current``; raise `ValueError` for a bad one."""


@runtime_checkable
class OpaqueAggregation(Aggregation, Protocol):
    """An aggregation of contributions whose tensors are not the model's, e.g. ciphertexts.

    It checks contributions itself, and what it returns becomes the global parameters as it is. It averages by
    examples, as nodes name them. The first global parameters of a training are the model's own all the same.
    """

    def fault_of(self, contribution: Contribution, current: list[Array]) -> str:
        """Return what is wrong with a contribution, or an empty string."""


@runtime_checkable
class PlainMean(Aggregation, Protocol):
    """An aggregation that is no more than the average by examples, since its nodes name one example each.

    It tells nodes nothing and remembers nothing, so that an `OpaqueAggregation` can take its place.
    """

    plain_mean: bool
    """Whether that is so, as configured."""


# --- inference --------------------------------------------------------------------------------------------------------


def _no_architecture(name: str, _fields: Mapping[str, Any], _seed: int | None) -> Any:
    raise InvalidModel(f"the architecture {name!r} cannot be made here", remedy="export the model as a whole")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor that a model takes or gives.

    ``datatype`` is a name of the Open Inference Protocol (``FP32``, ``INT64``, ``BYTES``, …); ``shape`` has the axis
    of examples, and -1 where a size is free.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InferencerContext:
    """All that an inferencer needs to load one version of a model.

    ``threads`` is how many it may use for one call. ``allow_programs`` says whether the site takes artefacts that are
    programs (`locex.artefacts.programs`). ``architecture(name, fields, seed)`` makes a model by the name of an
    installed architecture, of the library that the artefact's manifest names. ``warn`` puts a sentence into the log.
    """

    artefact: ModelArtefact
    threads: int
    allow_programs: bool = True
    architecture: Callable[[str, Mapping[str, Any], int | None], Any] = _no_architecture
    warn: Callable[[str], None] = lambda _: None


LoadContext: TypeAlias = "BuildContext | InferencerContext"
"""What the loading of an artefact may ask: ``artefact``, ``architecture``, ``allow_programs`` and ``warn``."""


class Inferencer(Protocol):
    """One version of a model, loaded and ready to answer. Created by ``locex_create_inferencer``.

    ``BYTES`` tensors are arrays of Python ``bytes`` objects, ``BF16`` ones have ml_dtypes' ``bfloat16``.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs of these names; names, types and shapes of ``inputs`` have been checked.

        May be called by several threads at once.
        """

    def close(self) -> None:
        """Let go of memory and devices; no call follows."""
