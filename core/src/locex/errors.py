"""Errors that users see: a stable code, what is wrong, and what to do about it.

Each class names its ``code``; `locex.web.problems` maps codes to HTTP statuses. Errors cross process boundaries
as JSON (`to_json`, `from_json`), never as pickled exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar


class LocexError(Exception):
    """Something a user can act on.

    ``remedy`` says what to do. ``errors`` lists faults by field: ``{"path": "/config/0/epochs", "message": …}`` with
    JSON pointers into what the user sent. ``private`` are figures of local data or weights: they belong to the text
    that the node's own users see, and not to ``message``, which servers are told.
    """

    code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        errors: Sequence[Mapping[str, Any]] = (),
        code: str | None = None,
        retry_after: float | None = None,
        private: str = "",
    ) -> None:
        """Keep the parts; ``code`` overrides the class's, for errors rebuilt from JSON."""
        super().__init__(f"{message} ({private})" if private else message)
        self.message = message
        self.remedy = remedy
        self.errors = [dict(error) for error in errors]
        self.retry_after = retry_after
        self._code = code or type(self).code

    def to_json(self) -> dict[str, Any]:
        """Return the error as a JSON object that `from_json` accepts."""
        content: dict[str, Any] = {"code": self._code, "message": str(self), "remedy": self.remedy}
        if self.errors:
            content["errors"] = self.errors
        return content

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> LocexError:
        """Rebuild an error that another process reported; its class is the one whose code it bears."""
        code = str(content.get("code", "internal"))
        error = LocexError.__new__(_class_of(code))
        LocexError.__init__(
            error,
            str(content.get("message", "")),
            remedy=str(content.get("remedy", "")),
            errors=content.get("errors", ()),
            code=code,
        )
        return error

    @property
    def error_code(self) -> str:
        """The stable code of this very error."""
        return self._code


def _class_of(code: str) -> type[LocexError]:
    pending = [LocexError]
    while pending:
        candidate = pending.pop()
        if candidate.code == code:
            return candidate
        pending.extend(candidate.__subclasses__())
    return LocexError


def _package(origin: str) -> str:
    return origin.partition(" ")[0]


def _listing(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


class InvalidConfiguration(LocexError):
    """A configuration does not fit its model; ``errors`` holds every fault with its JSON path."""

    code = "configuration-invalid"


class UnknownPlugin(LocexError):
    """No installed plugin of the kind has this name."""

    code = "plugin-unknown"

    def __init__(self, kind: str, name: str, installed: Iterable[str], *, path: str = "") -> None:
        """Name the kind, the name asked for and those installed; ``path`` is the JSON pointer of the field."""
        message = f"no {kind} named {name!r} is installed; installed are: {_listing(installed)}"
        super().__init__(
            message,
            remedy=f"choose an installed {kind} or install the package that brings {name!r} on this node",
            errors=[{"path": path, "message": message}] if path else (),
        )


class DuplicatePlugin(LocexError):
    """Two distributions offer the same plugin name."""

    code = "plugin-duplicate"

    def __init__(self, kind: str, name: str, origins: Iterable[str]) -> None:
        """``origins``: the distributions with their versions."""
        super().__init__(
            f"{kind} {name!r} is offered by several distributions: {_listing(origins)}",
            remedy="uninstall all but one of them, or deny the others in LOCEX_DENIED_DISTRIBUTIONS",
        )


class IncompatiblePlugin(LocexError):
    """A plugin's distribution asks for another version of locex-core."""

    code = "plugin-incompatible"

    def __init__(self, kind: str, name: str, origin: str, requirement: str, core_version: str) -> None:
        """``origin``: distribution and version; ``requirement``: what it declares; ``core_version``: what is here."""
        super().__init__(
            f"{kind} {name!r} of {origin} requires {requirement}, installed is locex-core {core_version}",
            remedy=f"install a version of {_package(origin)} made for locex-core {core_version}",
        )


class RefusedPlugin(LocexError):
    """The site's policy does not admit a plugin's distribution."""

    code = "plugin-refused"

    def __init__(self, kind: str, name: str, origin: str, rule: str) -> None:
        """``rule``: the setting that refuses it."""
        super().__init__(
            f"{kind} {name!r} of {origin} is refused by this site ({rule})",
            remedy=f"ask the operator to admit {_package(origin)} in {rule}, or choose another {kind}",
        )


class BrokenPlugin(LocexError):
    """A plugin is installed but raised while it was loaded, or is not what its kind needs."""

    code = "plugin-broken"

    def __init__(self, kind: str, name: str, origin: str, reason: str) -> None:
        """``reason``: the exception in one line, or what is missing."""
        super().__init__(
            f"{kind} {name!r} of {origin} cannot be loaded: {reason}",
            remedy=f"run `locex plugins check {name}` on the node; repair or uninstall {_package(origin)}",
        )


class CrashedPlugin(LocexError):
    """The process that loaded plugins died or did not answer in time."""

    code = "plugin-crashed"

    def __init__(self, what: str, how: str, log: str = "") -> None:
        """Name the plugins being loaded, how it ended (exit code, signal, time-out) and the last lines of stderr."""
        super().__init__(
            f"loading {what} {how}" + (f"; last lines:\n{log}" if log else ""),
            remedy="run `locex plugins check NAME` for each of them on the node, and uninstall the one that crashes",
        )


class UnknownJob(LocexError):
    """No job has this training id."""

    code = "job-unknown"

    def __init__(self, training_id: str) -> None:
        """Name the training id."""
        super().__init__(f"no job has the training id {training_id!r}", remedy="GET /jobs lists the jobs of this node")


class ActiveJob(LocexError):
    """The training id has a job that is not over."""

    code = "job-active"

    def __init__(self, training_id: str, state: str) -> None:
        """Name the training id and the state of its job."""
        super().__init__(
            f"training {training_id!r} is already {state} on this node",
            remedy=f"wait for it, or stop it first: DELETE /job/{training_id}",
        )


class QueueFull(LocexError):
    """The node takes no further job now."""

    code = "queue-full"

    def __init__(self, limit: int, retry_after: float) -> None:
        """``limit``: jobs that may wait; ``retry_after``: seconds."""
        super().__init__(
            f"this node runs and keeps waiting as many jobs as it may ({limit} waiting)",
            remedy="post the job again later, or raise LOCEX_QUEUE_LIMIT",
            retry_after=retry_after,
        )


class UnknownModel(LocexError):
    """Neither the node nor the repository has the model."""

    code = "model-unknown"

    def __init__(self, name: str, version: str, places: str) -> None:
        """``places``: where was looked."""
        super().__init__(
            f"model {name!r} version {version!r} was not found in {places}",
            remedy="POST /model/ and PUT /model/{name}/{version}, or add it to the FL Repository",
            errors=[{"path": "/model_name", "message": f"unknown model {name!r} version {version!r}"}],
        )


class DuplicateModel(LocexError):
    """A model of this name and version is there already."""

    code = "model-duplicate"

    def __init__(self, name: str, version: str) -> None:
        """Name it."""
        super().__init__(
            f"model {name!r} version {version!r} exists already",
            remedy="choose another version, or delete it first: DELETE /model/{name}/{version}",
        )


class RepositoryUnavailable(LocexError):
    """The FL Repository did not answer."""

    code = "repository-unavailable"

    def __init__(self, address: str, reason: str) -> None:
        """``reason``: the fault in one line."""
        super().__init__(
            f"the FL Repository at {address} did not answer: {reason}",
            remedy="check REPOSITORY_ADDRESS and that the repository runs, or store the model on the node",
            retry_after=10,
        )


class InvalidModel(LocexError):
    """A model artefact cannot be used: corrupt, too large, of an unsafe or unknown format, or it does not fit."""

    code = "model-invalid"


class FormatMismatch(LocexError):
    """The data, after every step of the pipeline, does not have the format that the model takes."""

    code = "format-mismatch"


class StepFailed(LocexError):
    """A step of a pipeline raised, or gave what no step may give."""

    code = "step-failed"

    def __init__(self, label: str, reason: str) -> None:
        """``label``: the step and its place; ``reason``: the exception in one line, or what is wrong."""
        super().__init__(
            f"{label} {reason}",
            remedy="check the data that reach this step and its parameters; `locex plugins check` tries the step alone",
        )


class DataUnavailable(LocexError):
    """Local data is missing or cannot be read."""

    code = "data-unavailable"


class BadParameters(LocexError):
    """Weights that arrived from the federation were refused; the last good ones stay."""

    code = "parameters-refused"


class PrivacyRefused(LocexError):
    """A privacy mechanism cannot hold its guarantee: budget spent, impossible combination or parameters."""

    code = "privacy-refused"


class PolicyRefused(LocexError):
    """A job breaks a rule of the site's policy."""

    code = "policy-refused"

    def __init__(self, rule: str, breach: str) -> None:
        """``rule``: its name; ``breach``: how the job breaks it."""
        super().__init__(
            f"the site's policy refuses the job, rule {rule!r}: {breach}",
            remedy="change the job's privacy-mechanisms as the rule asks, or speak with the node's operator",
        )


class FederationLost(LocexError):
    """The federation could not be reached, or was lost for longer than the node's patience."""

    code = "federation-lost"


class ServerRefused(LocexError):
    """The site's policy does not admit the Flower server that a job names."""

    code = "server-refused"


class StoreUnavailable(LocexError):
    """The store cannot be used: disk full, database down, folder owned by another service."""

    code = "store-unavailable"


class InterpreterUnavailable(LocexError):
    """The interpreter that is to run the workers cannot be used."""

    code = "interpreter-unavailable"


class Unauthorized(LocexError):
    """A request without a valid token."""

    code = "unauthorized"


class Forbidden(LocexError):
    """A token without the scope that the request needs."""

    code = "forbidden"


class TooLarge(LocexError):
    """A body, an archive or a message over its bound."""

    code = "too-large"
