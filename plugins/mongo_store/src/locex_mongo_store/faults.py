"""What the driver's errors mean to a user; their own texts may quote records and are not repeated."""

from __future__ import annotations

from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    DocumentTooLarge,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from locex.errors import LocexError, StoreUnavailable, TooLarge

DUPLICATE = 11000
"""The server's code of a duplicate key."""

RETRY_AFTER = 5.0

_DENIED = {13: "not authorized", 18: "authentication failed", 8000: "authentication failed"}
_TLS = ("SSL", "TLS", "certificate")


def reason_of(error: PyMongoError | BSONError, where: str) -> LocexError:
    """Return the error of ours; ``where`` names database and hosts."""
    if isinstance(error, DocumentTooLarge):
        return TooLarge(
            "a record has more than the 16 MB that a document of MongoDB may have",
            remedy="post the training again with fewer rounds, or use the embedded store",
        )
    reason, remedy = _reason(error)
    return StoreUnavailable(f"the database {where} cannot be used: {reason}", remedy=remedy, retry_after=RETRY_AFTER)


def _reason(error: Exception) -> tuple[str, str]:
    if isinstance(error, OperationFailure):
        if error.code in _DENIED:
            return _DENIED[error.code], "check user, password, authSource and roles (readWrite) of the store's URL"
        name = (error.details or {}).get("codeName", type(error).__name__)
        return f"it refused an operation ({name})", "see the log of mongod"
    if isinstance(error, AutoReconnect):
        if any(word in str(error) for word in _TLS):
            return "TLS failed", "check the store's URL (tls, tlsCAFile, tlsCertificateKeyFile) and the certificates"
        lost = "no server answers" if isinstance(error, ServerSelectionTimeoutError) else "the connection was lost"
        return lost, "start mongod, and check the hosts of the store's URL and the network"
    if isinstance(error, InvalidOperation):
        return "the store is closed", "try again when the service has started"
    return type(error).__name__, "see the log of mongod"
