"""What the machine offers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Capabilities(BaseModel):
    """The computational capabilities of the machine; the upper-case names are the public description's."""

    model_config = ConfigDict(protected_namespaces=())

    storage: float = Field(description="Free space where the state lies, in GiB.")
    RAM: float = Field(description="Free memory, in GiB.")
    GPU: bool = Field(description="Whether the machine has a GPU.")
    cores: int = Field(description="Processor cores that the service may use.")
    preinstalled_libraries: dict[str, str] = Field(description="Installed distributions with their versions.")
    available_models: dict[str, list[str]] = Field(description="Versions of local models, by name.")
