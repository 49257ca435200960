"""Where keys are mounted; the names are those of the older services."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from locex.errors import PrivacyRefused
from locex_privacy.homomorphic.config import HomomorphicConfig
from locex_privacy.homomorphic.keys import KeyFile, exposure_of, find_key, read_key

SECRET, PUBLIC = "HM_SECRET_FILE", "HM_PUBLIC_FILE"


class KeySettings(BaseSettings):
    """Keys of homomorphic encryption."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore")

    secret_file: Path | None = Field(
        default=None, validation_alias=SECRET, description="At a node: the secret key, or a folder of them."
    )
    public_file: Path | None = Field(
        default=None, validation_alias=PUBLIC, description="At the collector: the public half, or a folder of them."
    )


def secret_key(config: HomomorphicConfig) -> tuple[KeyFile, list[str]]:
    """Return this node's key and warnings about it; raise `PrivacyRefused` for one that must not be used."""
    require_tenseal()
    path = find_key(KeySettings().secret_file, SECRET, config.key, secret=True)
    key = _fitting(config, read_key(path, SECRET), path)
    if not key.secret:
        raise PrivacyRefused(
            f"{path} ({SECRET}) is the public half of key {key.key_id}: nodes need the secret",
            remedy="mount the .secret file of the pair",
        )
    exposed, refused = exposure_of(path)
    if refused:
        raise PrivacyRefused(
            f"the secret key {exposed}",
            remedy="chmod 600 it; in Kubernetes give the Secret's volume defaultMode: 0400",
        )
    return key, [f"the secret key {exposed}"] if exposed else []


def public_key(config: HomomorphicConfig) -> KeyFile:
    """Return the collector's half of a key; raise `PrivacyRefused` for a secret one."""
    require_tenseal()
    path = find_key(KeySettings().public_file, PUBLIC, config.key, secret=False)
    key = read_key(path, PUBLIC)
    if key.secret:
        raise PrivacyRefused(
            f"{path} ({PUBLIC}) holds the secret of key {key.key_id}: a collector must not have it",
            remedy="mount the .public file of the pair, and make a new pair if this machine is not trusted",
        )
    return _fitting(config, key, path)


def require_tenseal() -> None:
    """Raise `PrivacyRefused` where TenSEAL is not installed."""
    if find_spec("tenseal") is None:
        raise PrivacyRefused(
            "homomorphic needs TenSEAL, which is not installed", remedy="pip install 'locex-privacy[homomorphic]'"
        )


def _fitting(config: HomomorphicConfig, key: KeyFile, path: Path) -> KeyFile:
    if differing := config.disagreement(key.parameters):
        raise PrivacyRefused(
            f"the key {path} was made with other parameters than are asked for: {differing}",
            remedy="leave the parameters out of privacy-mechanisms.homomorphic, or make a key with them",
        )
    return key
