"""What can be wrong with a request for inference; every transport maps ``http`` and ``grpc`` to its own codes."""

from __future__ import annotations

from typing import ClassVar

from locex.errors import LocexError


class InferenceError(LocexError):
    """An error of a request; ``http`` is its HTTP status, ``grpc`` the name of its gRPC status."""

    code = "inference-failed"
    http: ClassVar[int] = 500
    grpc: ClassVar[str] = "INTERNAL"


class InvalidInference(InferenceError):
    """A request that does not fit the model: names, types, shapes, parameters."""

    code = "inference-invalid"
    http = 400
    grpc = "INVALID_ARGUMENT"


class InvalidTensor(InvalidInference):
    """A tensor whose bytes or values are not what its type and shape say."""

    code = "tensor-invalid"


class UnknownServed(InferenceError):
    """A model, or a version of one, that is not served."""

    code = "served-model-unknown"
    http = 404
    grpc = "NOT_FOUND"


class NotReady(InferenceError):
    """A model that is known and not ready: it loads, or could not be loaded."""

    code = "served-model-not-ready"
    http = 503
    grpc = "UNAVAILABLE"


class Overloaded(InferenceError):
    """More requests wait for a model than may."""

    code = "inference-overloaded"
    http = 429
    grpc = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(InferenceError):
    """A request whose time ran out before it was answered."""

    code = "inference-deadline"
    http = 504
    grpc = "DEADLINE_EXCEEDED"


class ModelFailed(InferenceError):
    """A model, or a step of its pipelines, that raised or whose process ended."""

    code = "inference-failed"
