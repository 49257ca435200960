"""What a loaded artefact is to a session, whatever its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from locex.api import ModelSignature
from locex.errors import InvalidModel
from locex_torch_builder.names import FormatName


class LoadedModel(ABC):
    """A module with its signature. Kinds differ in how they switch between modes and in what they can become."""

    kind: ClassVar[str]
    formats: ClassVar[frozenset[FormatName]]
    """What `export.export_model` can make of it."""

    def __init__(self, module: nn.Module, signature: ModelSignature, warn: Callable[[str], None]) -> None:
        """``warn`` puts a sentence among the job's warnings."""
        self.module = module
        self.signature = signature
        self.warn = warn

    def train(self, mode: bool = True) -> None:
        """Switch the module to training, or with False to evaluation; not every kind has ``module.train()``."""
        self.module.train(mode)

    def move(self, device: torch.device) -> None:
        """Move the module to a device; not every kind has all of it in parameters and buffers."""
        self.module.to(device)

    @abstractmethod
    def write(self, folder: Path) -> Path:
        """Write the model as an artefact of its own kind and return its path."""


@contextmanager
def loading(kind: str, remedy: str) -> Iterator[None]:
    """Turn what PyTorch raises about a model into `InvalidModel`, and its lack of memory into `MemoryError`."""
    try:
        yield
    except (InvalidModel, MemoryError):
        raise
    except Exception as error:  # a damaged file can make PyTorch's readers raise anything
        require_memory(error)
        text = str(error)
        lines = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
        told = lines[-1] if "Traceback" in text else lines[0]
        raise InvalidModel(f"PyTorch cannot load the {kind}: {told[:500]}", remedy=remedy) from error


def first_line(error: Exception) -> str:
    """Return what an error says in its first line, at most 300 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


def require_arrays(module: nn.Module) -> None:
    """Raise `InvalidModel` for tensors of types that no array has (bfloat16, float8): a federation sends arrays."""
    for name, tensor in module.state_dict().items():
        try:
            torch.empty(0, dtype=tensor.dtype).numpy()
        except TypeError as error:
            raise InvalidModel(
                f"{name} is of type {tensor.dtype}, which arrays do not have",
                remedy="upload the model with weights of float32; the option mixed_precision runs it in bfloat16",
            ) from error


def require_memory(error: Exception) -> None:
    """Raise `MemoryError` if that is what an error of PyTorch's means: it has a class for it on GPUs only."""
    lines = str(error).splitlines()
    signs = [""] if isinstance(error, torch.OutOfMemoryError) else ["can't allocate memory", "bad_alloc"]
    if told := next((line for line in lines if any(sign in line for sign in signs)), None):
        raise MemoryError(told) from error
