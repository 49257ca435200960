"""Key files: a federation's secret and its public half, as JSON. Nothing here needs TenSEAL.

Both name the key by ``key_id``, the beginning of a SHA-256 over parameters and secret, so that everybody can tell whose
ciphertexts are whose. The public half holds the parameters and no key material: nodes encrypt with the secret key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from locex.errors import PrivacyRefused
from locex.settings import read_secret
from locex_privacy.homomorphic.parameters import CkksParameters

ENDINGS = {True: ".secret", False: ".public"}


class KeyFile(BaseModel):
    """The content of a key file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    locex_key: Literal[1] = 1
    key_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    secret: bool
    parameters: CkksParameters
    context: str = Field(repr=False)

    @property
    def content(self) -> bytes:
        """TenSEAL's context."""
        return base64.b64decode(self.context, validate=True)


def pair_of(parameters: CkksParameters, secret: bytes, public: bytes) -> tuple[KeyFile, KeyFile]:
    """Return the files of a new key from TenSEAL's contexts."""
    key_id = key_id_of(parameters, secret)

    def file(content: bytes, *, is_secret: bool) -> KeyFile:
        text = base64.b64encode(content).decode()
        return KeyFile(key_id=key_id, secret=is_secret, parameters=parameters, context=text)

    return file(secret, is_secret=True), file(public, is_secret=False)


def key_id_of(parameters: CkksParameters, secret: bytes) -> str:
    """Return the name of a secret context that tells nothing about it."""
    told = parameters.model_dump_json().encode()
    return hashlib.sha256(b"\n".join((b"locex CKKS key", told, secret))).hexdigest()[:32]


def write_key(path: Path, key: KeyFile) -> None:
    """Write a new file, a secret one for its owner only; raise `FileExistsError`."""
    mode = 0o600 if key.secret else 0o644
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask
        file.write(key.model_dump_json(indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_key(path: Path, setting: str) -> KeyFile:
    """Read a key file; raise `InvalidConfiguration` or `PrivacyRefused`. No text of it gets into an error."""
    try:
        key = KeyFile.model_validate_json(read_secret(path, setting))
        content = key.content
    except (ValidationError, binascii.Error) as error:
        fault = ""
        if isinstance(error, ValidationError):
            told = error.errors(include_url=False, include_context=False, include_input=False)[0]
            fault = f" ({'.'.join(map(str, told['loc']))}: {told['msg']})" if told["loc"] else ""
        raise PrivacyRefused(
            f"{path} is no key of homomorphic encryption{fault}",
            remedy="make a pair with: locex keys new NAME",
        ) from None
    if key.secret and key_id_of(key.parameters, content) != key.key_id:
        raise PrivacyRefused(f"the key in {path} is damaged: it is not {key.key_id}", remedy="mount the file again")
    return key


def find_key(place: Path | None, setting: str, name: str | None, *, secret: bool) -> Path:
    """Return the file of a key; ``place`` is the setting's file or folder. Raise `PrivacyRefused`."""
    ending = ENDINGS[secret]
    if place is None:
        raise PrivacyRefused(
            f"homomorphic needs a key, and {setting} is not set",
            remedy=f"make a pair with: locex keys new NAME, and let {setting} name NAME{ending} or its folder",
        )
    if not place.is_dir():
        if name is not None and place.name.partition(".")[0] != name:
            raise PrivacyRefused(
                f"the key {name!r} is asked for, and {setting} is the file {place}",
                remedy=f"let {setting} name the folder of the keys, or name the key as the file is",
            )
        return place
    names = sorted(path.name.removesuffix(ending) for path in place.glob(f"*{ending}"))
    if name is None and len(names) == 1:
        name = names[0]
    if name is None or name not in names:
        asked = "which of them is meant must be said" if name is None else f"{name!r} is not among them"
        raise PrivacyRefused(
            f"the keys in {place} ({setting}) are: {', '.join(names) or 'none'}; {asked}",
            remedy='name one as "key" in privacy-mechanisms.homomorphic',
        )
    return place / f"{name}{ending}"


def exposure_of(path: Path) -> tuple[str, bool]:
    """Return who beside its owner can use a secret file, in words, and whether that is too many to go on."""
    mode = path.stat().st_mode
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        who = "everybody on this machine" if mode & stat.S_IRWXO else "its group"
        return f"{path} (mode {stat.S_IMODE(mode):04o}) can be read or changed by {who}", True
    if mode & stat.S_IRGRP:
        return f"{path} (mode {stat.S_IMODE(mode):04o}) can be read by its group", False
    return "", False
