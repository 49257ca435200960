"""The catalogue as a service sees it: read anew at each question, so that a package installed later is found."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from locex.errors import InterpreterUnavailable
from locex.plugins.catalog import Catalog, Policy, read_catalog
from locex.plugins.libraries import read_libraries

_PATIENCE = 30.0  # seconds that another interpreter may take
_FOREIGN_AGE = 5.0  # seconds; asking another interpreter takes a process


class Installed:
    """Reads the catalogue of the interpreter that runs the workers."""

    def __init__(self, policy: Policy, *, interpreter: str | None = None, folders: Sequence[Path] = ()) -> None:
        """``interpreter``: another Python than the service's own; ``folders``: searched besides its path."""
        self._policy = policy
        self._interpreter = interpreter
        self._folders = list(folders)
        self._foreign: tuple[float, Catalog] | None = None

    async def catalog(self) -> Catalog:
        """Return what is installed now."""
        if self._interpreter is None:
            importlib.invalidate_caches()
            return await asyncio.to_thread(read_catalog, self._policy, self._folders)
        if self._foreign is None or time.monotonic() - self._foreign[0] > _FOREIGN_AGE:
            output = await self._ask(self._interpreter, "locex.plugins.catalog")
            try:
                catalog = Catalog.from_json(output.decode(), self._policy)
            except (ValueError, KeyError):
                raise _unavailable(self._interpreter) from None
            self._foreign = time.monotonic(), catalog
        return self._foreign[1]

    async def libraries(self) -> dict[str, str]:
        """Return every distribution that jobs run with, with its version."""
        if self._interpreter is None:
            return await asyncio.to_thread(read_libraries, self._folders)
        output = await self._ask(self._interpreter, "locex.plugins.libraries")
        try:
            return dict(json.loads(output))
        except ValueError:
            raise _unavailable(self._interpreter) from None

    async def _ask(self, interpreter: str, module: str) -> bytes:
        argv = [interpreter, "-m", module, *map(str, self._folders)]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            asked = await asyncio.to_thread(subprocess.run, argv, capture_output=True, timeout=_PATIENCE, check=False)
            return asked.stdout
        return b""


def _unavailable(interpreter: str) -> InterpreterUnavailable:
    return InterpreterUnavailable(
        f"the interpreter {interpreter} (LOCEX_WORKER_PYTHON) cannot read its catalogue of plugins",
        remedy="check that it exists and that locex-core is installed there",
    )
