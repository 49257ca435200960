"""Settings of a node, from the environment. Names without the prefix LOCEX_ are those of the older services."""

from __future__ import annotations

import json
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from packaging.utils import canonicalize_name
from pydantic import AliasChoices, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from locex.errors import InvalidConfiguration
from locex.plugins.catalog import Policy
from locex.schemas.model import Name


def _words(value: Any) -> Any:
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


Words = Annotated[list[str], NoDecode, BeforeValidator(_words)]
"""A list that the environment writes with commas."""


class PluginSettings(BaseSettings):
    """Which plugins there are, and which interpreter runs them."""

    model_config = SettingsConfigDict(env_prefix="LOCEX_", env_ignore_empty=True, extra="ignore", populate_by_name=True)

    worker_python: str | None = Field(default=None, description="Interpreter of workers; absent: the service's own.")
    plugin_folder: Path | None = Field(default=None, description="A folder with further installed distributions.")
    allowed_distributions: Words = Field(default=[], description="Plugin distributions admitted; empty: all.")
    denied_distributions: Words = Field(default=[], description="Plugin distributions refused.")

    @cached_property
    def policy(self) -> Policy:
        """The rule about distributions."""
        allowed, denied = (
            frozenset[str](map(canonicalize_name, names))
            for names in (self.allowed_distributions, self.denied_distributions)
        )
        return Policy(allowed, denied)

    @property
    def plugin_folders(self) -> list[Path]:
        """Folders that are searched for distributions besides the interpreter's path."""
        return [self.plugin_folder] if self.plugin_folder else []


class SiteSettings(BaseSettings):
    """The site's data and the defaults of its jobs; a worker reads these too."""

    model_config = SettingsConfigDict(env_prefix="LOCEX_", env_ignore_empty=True, extra="ignore", populate_by_name=True)

    data_folder: Path = Field(default=Path("/data"), validation_alias="DATA_FOLDER", description="The local data.")
    preprocessed_folder: Path | None = Field(
        default=None, validation_alias="PREPROCESSED_FOLDER", description="Cache of prepared data."
    )
    preprocessed_mb: int = Field(
        default=10240, gt=0, description="Largest size of what pipelines, and of what data sources keep there, in MiB."
    )
    configuration_folder: Path | None = Field(
        default=None, description="Folder of setup.json, format.json, model.json and the pipelines."
    )
    data_format_file: str = Field(
        default="format.json", validation_alias="DATA_FORMAT_FILE", description="File that states the data's format."
    )
    data_source: str = Field(default="npy", description="The data source where neither job nor setup.json names one.")
    base_library: str = Field(
        default="pytorch", description='The library whose jobs with the client_type_id "base" are tests on plain files.'
    )
    base_source: str = Field(default="npy", description="The data source of those tests.")
    dataset: str = Field(default="default", description="The operator's name of the data set, for the privacy ledger.")
    policy_file: Path | None = Field(default=None, description="JSON file of the rules that every job must keep to.")
    federation: str = Field(default="flower-grpc", description="The federation where the job names none.")
    federation_fields: dict[str, dict[str, Any]] = Field(
        default={}, description='Fields of federations by name, as JSON: {"flower-grpc": {"backoff_max": 10}}.'
    )
    federated_port: int = Field(
        default=8080, validation_alias="FEDERATED_PORT", description="Port of a Flower server named without one."
    )
    optimizer: str = Field(default="sgd", description="The optimizer where the job names none.")
    root_certificates: Path | None = Field(default=None, description="PEM file of the CA of Flower servers: TLS.")
    patience: float = Field(default=600, gt=0, description="Seconds without progress before a federation is lost.")
    max_update_norm: float = Field(default=1e6, gt=0, description="Largest L2 norm of weights that are accepted.")
    allow_programs: bool = Field(default=True, description="Train models that are programs: TorchScript, SavedModel.")
    worker_memory_mb: int | None = Field(default=None, gt=0, description="Memory of one worker, in MiB.")
    plugin_memory_mb: int = Field(default=2048, gt=0, description="Memory for loading or trying plugins, in MiB.")


def default_state_folder() -> Path:
    """Return where state lies unless told otherwise: below the user's data folder."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "locex"


def scheme_of(url: str) -> str:
    """Return what stands before the colon of a URL, without what follows a plus sign; empty where there is none."""
    scheme = re.match(r"([a-z][a-z0-9.-]*)(\+[a-z0-9.-]+)?:", url)
    return scheme[1] if scheme else ""


def read_secret(path: Path, setting: str) -> str:
    """Return the text of a mounted file; raise `InvalidConfiguration` naming the setting."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidConfiguration(
            f"the file {path} cannot be read: {reason}", remedy=f"check {setting} and who may read it"
        ) from None


class ServiceSettings(PluginSettings):
    """What every service has: an address, protection, state and a store."""

    host: str = Field(default="127.0.0.1", validation_alias="HOST", description="Address to listen on.")
    port: int = Field(ge=0, le=65535, validation_alias="PORT", description="Port to listen on.")
    state_folder: Path = Field(default_factory=default_state_folder, description="The service's own state.")
    store: str = Field(default="sqlite", description="The store's plugin, where the URL does not tell it.")
    store_url: str = Field(default="", repr=False, description="Where the store is; empty: in the state folder.")
    store_url_file: Path | None = Field(default=None, description="File that holds the URL, for one with a password.")
    store_fields: dict[str, Any] = Field(default={}, description='Fields of the store, as JSON: {"sweep_grace": 60}.')
    database_host: str | None = Field(
        default=None, validation_alias="DATABASE_NAME", description="Host of a MongoDB, where no URL is given."
    )
    database_port: int = Field(default=27017, gt=0, le=65535, validation_alias="DB_PORT", description="Its port.")
    node: Name | None = Field(default=None, description="This node's name in a shared store; absent: a random one.")
    api_token_file: Path | None = Field(default=None, description="Tokens with their scopes, a line each.")
    insecure: bool = Field(default=False, description="Listen beyond loopback without tokens.")
    allowed_hosts: Words = Field(default=[], description="Names by which browsers may reach a service without tokens.")
    tls_certificate: Path | None = Field(default=None, description="PEM file of the service's certificate.")
    tls_key: Path | None = Field(default=None, description="PEM file of its key.")
    tls_client_ca: Path | None = Field(default=None, description="PEM file of the CA of callers: mTLS.")
    max_model_mb: int = Field(default=2048, gt=0, description="Largest model artefact, in MiB.")
    stop_grace: float = Field(default=10, gt=0, description="Seconds a process has to stop before it is killed.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="What is logged.")

    @model_validator(mode="after")
    def _whole_tls(self) -> Self:
        """Refuse a part of TLS: a certificate without its key would mean traffic in clear."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("LOCEX_TLS_CERTIFICATE and LOCEX_TLS_KEY go together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("LOCEX_TLS_CLIENT_CA needs LOCEX_TLS_CERTIFICATE and LOCEX_TLS_KEY")
        return self

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        """Refuse two places of one store."""
        if self.store_url and self.store_url_file is not None:
            raise ValueError("LOCEX_STORE_URL and LOCEX_STORE_URL_FILE exclude each other")
        return self

    def store_location(self) -> tuple[str, str]:
        """Return the store's plugin and URL; raise `InvalidConfiguration` for a file that cannot be read.

        A plugin that was not named is the URL's scheme. The older services' host counts where nothing else is given.
        """
        url = self.store_url
        if self.store_url_file is not None:
            url = read_secret(self.store_url_file, "LOCEX_STORE_URL_FILE")
        elif not url and self.database_host and "store" not in self.model_fields_set:
            host = f"[{self.database_host}]" if ":" in self.database_host else self.database_host
            url = f"mongodb://{host}:{self.database_port}/"
        return self.store if "store" in self.model_fields_set else scheme_of(url) or self.store, url


class NodeSettings(SiteSettings, ServiceSettings):
    """All settings of the AI Local Execution service."""

    port: int = Field(default=9050, ge=0, le=65535, validation_alias="PORT", description="Port to listen on.")
    repository_address: str | None = Field(
        default=None, validation_alias="REPOSITORY_ADDRESS", description="The FL Repository, host:port or URL."
    )
    allowed_servers: Words = Field(default=[], description="Flower servers, host or host:port; empty: any.")
    plugin_timeout: float = Field(default=10, gt=0, description="Seconds that loading plugins may take.")
    inspect_timeout: float = Field(
        default=60, gt=0, description="Seconds that a question about data or formats may take."
    )
    max_jobs: int = Field(
        default=1,
        gt=0,
        validation_alias=AliasChoices("LOCEX_MAX_JOBS", "TOTAL_LOCAL_OPERATIONS"),
        description="Jobs that run at once.",
    )
    queue_limit: int = Field(default=16, ge=0, description="Jobs that may wait.")
    spare_worker: bool = Field(default=True, description="Keep a worker started ahead of the next job.")
    checkpoints: Literal["folder", "store"] = Field(
        default="folder", description="Where checkpoints of running jobs are: in the state folder, or in the store too."
    )
    resume: bool = Field(default=True, description="Go on with interrupted jobs at start.")
    max_resumes: int = Field(default=5, ge=0, description="Replacements of a dead worker without a round in between.")
    threads: int | None = Field(default=None, gt=0, description="Threads of one worker; absent: cores / max_jobs.")
    prepare_timeout: float = Field(
        default=3600, gt=0, description="Seconds that a worker may take to prepare data and model."
    )
    heartbeat_timeout: float = Field(default=60, gt=0, description="A worker silent for so many seconds is ended.")


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def read_settings(kind: type[SettingsT], **given: Any) -> SettingsT:
    """Return settings, ``given`` before the environment's; raise `InvalidConfiguration` naming those that cannot be."""
    try:
        return kind(**given)
    except ValidationError as error:
        faults = [
            {"path": f"/{_setting(kind, str(fault['loc'][0]))}" if fault["loc"] else "", "message": fault["msg"]}
            for fault in error.errors(include_url=False)
        ]
        listing = "; ".join(f"{fault['path'][1:]}: {fault['message']}".removeprefix(": ") for fault in faults)
        raise InvalidConfiguration(
            f"the settings are invalid: {listing}", remedy="docs/settings.md lists them all", errors=faults
        ) from None


def _setting(kind: type[BaseSettings], name: str) -> str:
    """Return the environment's name of a field that is not known by an alias."""
    field = kind.model_fields.get(name)
    if field is None or field.validation_alias is None:
        return f"{kind.model_config.get('env_prefix', '')}{name.upper()}" if field else name
    return str(getattr(field.validation_alias, "choices", [field.validation_alias])[0])


WITHHELD: dict[str, None] = {"LOCEX_STORE_URL": None, "LOCEX_STORE_URL_FILE": None, "LOCEX_API_TOKEN_FILE": None}
"""What may hold or name a secret of the service's is taken out of the environment of processes that run plugins."""


def worker_environment(settings: NodeSettings) -> dict[str, str | None]:
    """Return the environment in which a worker reads the same site and plugin settings; None: not set."""
    environment: dict[str, str | None] = {}
    for name, field in (SiteSettings.model_fields | PluginSettings.model_fields).items():
        environment[str(field.validation_alias or f"LOCEX_{name.upper()}")] = _text(getattr(settings, name)) or None
    return environment


def _text(value: Any) -> str:
    """Return a setting as the environment writes it."""
    if isinstance(value, dict):
        return json.dumps(value)
    return ",".join(value) if isinstance(value, list) else "" if value is None else str(value)
