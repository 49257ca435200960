"""What a node says of the inference service beside it; everything else is that service's own settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BesideSettings(BaseSettings):
    """Settings of `locex serve --inference`."""

    model_config = SettingsConfigDict(env_prefix="LOCEX_", env_ignore_empty=True, extra="ignore", populate_by_name=True)

    inference: bool = Field(default=False, description="Run the inference service beside the node.")
    inference_host: str = Field(default="127.0.0.1", description="Its address.")
    inference_port: int = Field(default=9000, gt=0, le=65535, description="Its port for HTTP.")
    inference_configuration_folder: Path | None = Field(
        default=None, description="Folder of its own ConfigMap files, which are named like the node's."
    )
    follow: str = Field(default="*", description="The models that it follows; *: every one that the node trains.")
