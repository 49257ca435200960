"""What the steps of a pipeline need of the machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from locex.errors import FormatMismatch
from locex.machine import free_memory, free_storage, has_gpu
from locex.pipelines.steps import Step


def require(steps: Sequence[Step], storage: Path, models: Mapping[str, Sequence[str]]) -> None:
    """Check what the steps need of this machine; raise `FormatMismatch` naming the step and what lacks.

    ``storage`` is where prepared data lies, ``models`` the versions of the node's models by name.
    """
    for step in steps:
        needs = step.transform.needs
        lacking = [f"the library {name}" for name in needs.libraries if not _importable(name)]
        if needs.memory > free_memory():
            lacking.append(f"{needs.memory} GiB of free memory")
        if needs.storage > free_storage(storage):
            lacking.append(f"{needs.storage} GiB of free storage")
        if needs.gpu and not has_gpu():
            lacking.append("a GPU")
        lacking += [f"the model {name}" for name in needs.models if not _is_there(name, models)]
        if lacking:
            raise FormatMismatch(
                f"the step {step.name} needs {' and '.join(lacking)}", remedy="remove the step or provide what it needs"
            )


def _importable(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except ImportError:  # the package around a submodule is missing
        return False


def _is_there(model: str, models: Mapping[str, Sequence[str]]) -> bool:
    name, _, version = model.partition("/")
    return name in models and (not version or version in models[name])
