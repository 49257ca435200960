"""What the machine offers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Gpu(BaseModel):
    """One graphics processor that computes."""

    vendor: str = Field(description="NVIDIA or AMD.")
    name: str = Field(description="The product's name; unknown where its driver does not tell.")
    memory: float | None = Field(default=None, description="Its memory, in GiB, where known.")
    free_memory: float | None = Field(default=None, description="What is free of it, in GiB, where known.")


class Capabilities(BaseModel):
    """The computational capabilities of the machine; the upper-case names are the public description's."""

    model_config = ConfigDict(protected_namespaces=())

    storage: float = Field(description="Free space where the state lies, in GiB.")
    RAM: float = Field(description="Free memory, in GiB.")
    GPU: bool = Field(description="Whether the machine has a GPU.")
    cores: int = Field(description="Processor cores that the service may use.")
    total_storage: float = Field(description="All space where the state lies, in GiB.")
    total_memory: float = Field(description="All memory that the service may use, in GiB.")
    gpus: list[Gpu] = Field(description="The graphics processors.")
    plugins: dict[str, dict[str, str]] = Field(
        description="Installed plugins by kind and name, with the distribution that brings each and its version."
    )
    preinstalled_libraries: dict[str, str] = Field(description="Distributions that jobs run with, with versions.")
    available_models: dict[str, list[str]] = Field(description="Versions of local models, by name.")
