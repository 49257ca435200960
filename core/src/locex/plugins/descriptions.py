"""The configuration schemas of installed plugins, learned in describe processes and cached on disk."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from locex.errors import CrashedPlugin
from locex.plugins.catalog import CORE, Catalog, Entry
from locex.processes.answers import answer_of, short_lived
from locex.processes.child import python
from locex.settings import WITHHELD

_PARALLEL = 2  # processes at once; more would only compete for a small machine's cores
_FAILURE_AGE = 30.0  # seconds; a broken plugin may be mended by something outside its own files, so ask again


class Descriptions:
    """Describes plugins, a process per distribution; a plugin that crashes or hangs costs that process only."""

    def __init__(
        self,
        cache: Path,
        *,
        interpreter: str | None = None,
        folders: Sequence[Path] = (),
        patience: float = 10,
        memory_mb: int | None = None,
    ) -> None:
        """``cache``: a folder for answers, by fingerprint; ``patience``, ``memory_mb``: what one plugin may take."""
        self._cache = cache
        self._interpreter = interpreter
        self._folders = [str(folder) for folder in folders]
        self._patience = patience
        self._memory_mb = memory_mb
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._lock = asyncio.Lock()
        self._failures: dict[Path, tuple[float, list[dict[str, Any]]]] = {}

    async def of(self, catalog: Catalog) -> dict[tuple[str, str, str], dict[str, Any]]:
        """Return a description or an error for every plugin, by kind, name and distribution."""
        by_distribution: dict[str, list[Entry]] = defaultdict(list)
        for entry in catalog.entries:
            if catalog.policy.rule_against(entry.distribution) is None:
                by_distribution[entry.distribution].append(entry)
        core = next((entry.fingerprint for entry in catalog.entries if entry.distribution == CORE), "")
        async with self._lock:
            answers = await asyncio.gather(*(self._distribution(entries, core) for entries in by_distribution.values()))
        return {key: answer for part in answers for key, answer in part.items()}

    async def _distribution(self, entries: list[Entry], core: str) -> dict[tuple[str, str, str], dict[str, Any]]:
        known = "\n".join((entries[0].fingerprint, core, self._interpreter or sys.executable))
        cached = self._cache / f"{hashlib.sha256(known.encode()).hexdigest()}.json"
        answers = await self._cached(cached)
        if answers is None:
            async with self._slots:
                answers = await self._ask(entries)
            await self._keep(cached, answers)
        return dict(zip(map(_key, entries), answers, strict=True))

    async def _cached(self, path: Path) -> list[dict[str, Any]] | None:
        when, answers = self._failures.get(path, (0.0, []))
        if time.monotonic() - when < _FAILURE_AGE and answers:
            return answers
        with contextlib.suppress(OSError, ValueError):
            return list(json.loads(await asyncio.to_thread(path.read_text)))
        return None

    async def _keep(self, path: Path, answers: list[dict[str, Any]]) -> None:
        if any("error" in answer for answer in answers):
            self._failures[path] = time.monotonic(), answers
            return
        with contextlib.suppress(OSError):  # without the cache it is only slower
            await asyncio.to_thread(_write, path, answers)

    async def _ask(self, entries: list[Entry]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        while len(answers) < len(entries):
            answers += await self._one_process(entries[len(answers) :])
        return answers

    async def _one_process(self, entries: list[Entry]) -> list[dict[str, Any]]:
        """Ask for as many as one process answers; the first that is not answered is the one that ended it."""
        answers: list[dict[str, Any]] = []
        argv = python("locex.plugins.describe", interpreter=self._interpreter)
        async with short_lived(argv, environment=WITHHELD) as child:
            asked = {"entries": [asdict(entry) for entry in entries], "folders": self._folders}
            await child.send(asked | {"memory_mb": self._memory_mb})
            try:
                for entry in entries:
                    what = f"{entry.kind} {entry.name!r} of {entry.origin}"
                    answers.append(await answer_of(child, what, self._patience))
            except CrashedPlugin as error:
                answers.append({"error": error.to_json()})
        return answers


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry.kind, entry.name, entry.distribution


def _write(path: Path, answers: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(answers))
    part.replace(path)
