"""The private key of a node that its SuperLink's operator has registered."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from locex.errors import InvalidConfiguration


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Load an EC P-384 key without a password, in OpenSSH's format or PEM; raise `InvalidConfiguration`."""
    try:
        content = path.read_bytes()
        load = load_ssh_private_key if b"OPENSSH" in content else load_pem_private_key
        key = load(content, password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _invalid(f"it cannot be read ({type(error).__name__})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _invalid("it is no EC P-384 key")
    return key


def _invalid(reason: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"the private key of private_key_file cannot be used: {reason}",
        remedy="make one with `ssh-keygen -t ecdsa -b 384 -N ''` and register its public half at the SuperLink",
        errors=[{"path": "/private_key_file", "message": reason}],
    )
