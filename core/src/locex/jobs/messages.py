"""The messages between a service and a worker, one JSON object a line."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter

from locex.schemas.job import JobConfiguration
from locex.schemas.model import ModelMetadata
from locex.schemas.record import FailureKind, JobState, RoundRecord

# --- from the service -------------------------------------------------------------------------------------------------


class Configure(BaseModel):
    """Load the plugins of a job and validate their fields."""

    kind: Literal["configure"] = "configure"
    job: JobConfiguration
    library: str


class Begin(BaseModel):
    """Take part in the training of the job that was configured."""

    kind: Literal["begin"] = "begin"
    run_id: str
    folder: str
    artefact: str
    digest: str
    metadata: ModelMetadata
    models: dict[str, list[str]] = {}
    resume: bool = False


class LedgerAnswer(BaseModel):
    """The answer to `LedgerRead` or `LedgerAppend`."""

    kind: Literal["ledger"] = "ledger"
    version: int = 0
    events: list[dict[str, Any]] = []
    granted: bool = False
    error: dict[str, Any] | None = None


class Stop(BaseModel):
    """Leave the federation as soon as a batch is done."""

    kind: Literal["stop"] = "stop"


# --- from the worker --------------------------------------------------------------------------------------------------


class Ready(BaseModel):
    """The worker is started and waits."""

    kind: Literal["ready"] = "ready"


class Heartbeat(BaseModel):
    """The worker lives; sent whatever it is doing."""

    kind: Literal["heartbeat"] = "heartbeat"


class Configured(BaseModel):
    """The job can be done: its configuration with every plugin's fields, distributions in use, warnings."""

    kind: Literal["configured"] = "configured"
    job: JobConfiguration
    plugins: dict[str, str]
    warnings: list[str] = []


class Refused(BaseModel):
    """The job cannot be done as it is configured."""

    kind: Literal["refused"] = "refused"
    error: dict[str, Any]


class StateChanged(BaseModel):
    """The job is in another state."""

    kind: Literal["state"] = "state"
    state: JobState
    reason: str = ""


class RoundFinished(BaseModel):
    """What is known of a round so far; a later message about the same round replaces it."""

    kind: Literal["round"] = "round"
    record: RoundRecord
    rounds: int | None = None


class RoundModel(BaseModel):
    """The global model of an evaluated round; its files lie in a folder of their own, the first is the model."""

    kind: Literal["round-model"] = "round-model"
    round: int
    files: list[str]
    pipeline: dict[str, Any] | None = None


class Warned(BaseModel):
    """Something the user should know."""

    kind: Literal["warning"] = "warning"
    text: str


class LedgerRead(BaseModel):
    """Read a privacy ledger."""

    kind: Literal["ledger-read"] = "ledger-read"
    dataset: str
    unit: str


class LedgerAppend(BaseModel):
    """Charge a privacy ledger if it still has this version."""

    kind: Literal["ledger-append"] = "ledger-append"
    dataset: str
    unit: str
    version: int
    event: dict[str, Any]


class Finished(BaseModel):
    """The training is over; the files lie in the run's folder, the first is the model.

    ``pipeline`` is what stood before it, with what its steps learnt (`locex.pipelines.saved`).
    """

    kind: Literal["finished"] = "finished"
    files: list[str]
    ended_early: bool = False
    pipeline: dict[str, Any] | None = None


class Failed(BaseModel):
    """The training failed in the worker."""

    kind: Literal["failed"] = "failed"
    failure: FailureKind
    error: dict[str, Any]


class Left(BaseModel):
    """The worker stopped because it was asked to."""

    kind: Literal["stopped"] = "stopped"


ToWorker = Configure | Begin | LedgerAnswer | Stop
FromWorker = (
    Ready
    | Heartbeat
    | Configured
    | Refused
    | StateChanged
    | RoundFinished
    | RoundModel
    | Warned
    | LedgerRead
    | LedgerAppend
    | Finished
    | Failed
    | Left
)

_TO_WORKER: TypeAdapter[ToWorker] = TypeAdapter(Annotated[ToWorker, Field(discriminator="kind")])
_FROM_WORKER: TypeAdapter[FromWorker] = TypeAdapter(Annotated[FromWorker, Field(discriminator="kind")])


def to_worker(content: dict[str, Any]) -> ToWorker:
    """Rebuild a message that the service sent."""
    return _TO_WORKER.validate_python(content)


def from_worker(content: dict[str, Any]) -> FromWorker:
    """Rebuild a message that a worker sent."""
    return _FROM_WORKER.validate_python(content)


def as_json(message: BaseModel) -> dict[str, Any]:
    """Return a message as a JSON object."""
    return message.model_dump(mode="json", by_alias=True)
