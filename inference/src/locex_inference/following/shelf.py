"""The versions that were followed so far, on this machine's disk: a service that starts serves them at once.

``<folder>/<model>/<digest>/<file>`` are the bytes; ``<folder>/<model>/state.json`` says which versions serve, which
were before them, and what was decided on every offer.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from locex.durable import sync
from locex.schemas.model import ModelMetadata
from locex_inference.following.offers import Offer

_STATE = "state.json"
_DECISIONS = 200  # remembered per model
_ARTEFACT = "model"


class Kept(BaseModel):
    """A version whose bytes are here.

    ``lineage`` is what its node tells of its training, the pipeline before it included; ``configuration`` is that of
    the job that trained it, where known.
    """

    metadata: ModelMetadata
    file: str
    digest: str
    created: float = 0
    key: str
    lineage: dict[str, Any] = {}
    configuration: dict[str, Any] | None = None

    @property
    def version(self) -> str:
        """The version's name."""
        return self.metadata.model_version


class Decision(BaseModel):
    """What became of an offer."""

    version: str
    digest: str
    accepted: bool
    reason: str = ""
    at: float = Field(default_factory=time.time)
    scores: dict[str, Any] = {}


class ModelState(BaseModel):
    """What is known of one followed model."""

    serving: Kept | None = None
    former: Kept | None = None
    decisions: dict[str, Decision] = {}

    def decide(self, key: str, decision: Decision) -> None:
        """Remember what became of an offer; the oldest memories go."""
        self.decisions.pop(key, None)
        self.decisions[key] = decision
        for oldest in list(self.decisions)[:-_DECISIONS]:
            del self.decisions[oldest]


class Shelf:
    """Files and states in a folder. File work blocks: call it in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def models(self) -> list[str]:
        """Return the models that there is something of."""
        return sorted(path.parent.name for path in self._folder.glob(f"*/{_STATE}"))

    def read(self, model: str) -> ModelState:
        """Return a model's state; a file that cannot be read counts as none."""
        try:
            return ModelState.model_validate_json((self._folder / model / _STATE).read_bytes())
        except (OSError, ValidationError):
            return ModelState()

    def write(self, model: str, state: ModelState) -> None:
        """Put a state in place of the one before, whole or not at all, and drop the files that it does not name."""
        place = self._folder / model
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = place / f"{_STATE}.part"
        part.write_text(json.dumps(state.model_dump(mode="json")), encoding="utf-8")
        sync(part)
        part.replace(place / _STATE)
        sync(place)
        self._sweep(place, {kept.digest for kept in (state.serving, state.former) if kept is not None})

    def path(self, model: str, kept: Kept) -> Path:
        """Return where the bytes of a version are."""
        return self._folder / model / kept.digest / (kept.file or _ARTEFACT)

    @contextmanager
    def receiving(self, model: str) -> Iterator[Path]:
        """Yield a path to write a download to; what is there at the end of the block is dropped."""
        place = self._folder / model
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = place / f"{os.urandom(8).hex()}.part"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep(self, offer: Offer, digest: str, received: Path) -> Kept:
        """Give received bytes their place."""
        kept = Kept(
            metadata=offer.metadata,
            file=offer.file,
            digest=digest,
            created=offer.created,
            key=offer.key,
            lineage=dict(offer.lineage),
        )
        path = self.path(offer.name, kept)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        sync(received)
        received.replace(path)
        sync(path.parent)
        return kept

    def _sweep(self, place: Path, digests: Collection[str]) -> None:
        for path in place.iterdir():
            if path.is_dir() and path.name not in digests:
                with suppress(OSError):
                    shutil.rmtree(path)
