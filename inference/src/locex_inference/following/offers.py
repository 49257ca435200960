"""What a node or the FL Repository offers: versions of models, with the files that each has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from locex.schemas.model import ModelMetadata, Name

_PREFERRED = (".onnx", ".tflite")
"""Ends of the names of files that are served before the artefact itself: they need no training framework."""

_NAME = TypeAdapter(Name)


class Listed(ModelMetadata):
    """A model in the list of a service. The predecessor's repository tells neither digests nor times."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=(), allow_inf_nan=False)

    digest: str | None = None
    size: int = 0
    created: float = 0
    updated: float = 0
    lineage: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Offer:
    """One version with the file that would be served; ``file`` is empty for the artefact, ``digest`` where unknown."""

    metadata: ModelMetadata
    file: str
    digest: str
    created: float
    lineage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.metadata.model_name

    @property
    def version(self) -> str:
        """The version's name."""
        return self.metadata.model_version

    @property
    def key(self) -> str:
        """What tells this offer from all others of its model."""
        return f"{self.version}:{self.file}:{self.digest}"

    @property
    def path(self) -> str:
        """The path of the file's bytes below the service's URL."""
        path = f"/model/{self.name}/{self.version}"
        return f"{path}/files/{self.file}" if self.file else path


def listed_in(content: Any) -> list[Listed]:
    """Return the models of an answer to ``GET /model/``; entries that are none are left out.

    Raise `ValueError` where the answer is no list.
    """
    if not isinstance(content, list):
        raise ValueError("its answer is no list of models")  # noqa: TRY004 -- the service's fault, not the caller's
    found = []
    for entry in content:
        try:
            found.append(Listed.model_validate(entry))
        except ValidationError:
            continue
    return found


def newest(models: Iterable[Listed], *, uploads: bool) -> dict[str, Offer]:
    """Return the newest offer of each model; without ``uploads`` only of versions that were trained.

    Where a service tells no times, the last in its list counts as the newest. Only nodes tell lineage: if no version
    of a model has any, all count.
    """
    by_name: dict[str, list[Listed]] = {}
    for model in models:
        if model.digest is not None or not model.updated:
            by_name.setdefault(model.model_name, []).append(model)
    offers = {}
    for name, versions in by_name.items():
        told = any(one.updated for one in versions)
        trained = versions if uploads or not told else [one for one in versions if one.lineage.get("run_id")]
        if trained:
            _, last = max(enumerate(trained), key=lambda pair: (pair[1].updated, pair[0]))
            offers[name] = _offer(last)
    return offers


def _offer(model: Listed) -> Offer:
    files = model.lineage.get("files")
    known = {name: str(digest) for name, digest in files.items() if _plain(name)} if isinstance(files, dict) else {}
    chosen = next((name for end in _PREFERRED for name in known if name.endswith(end)), "")
    metadata = ModelMetadata.model_validate(model.model_dump(include=set(ModelMetadata.model_fields)))
    digest = known[chosen] if chosen else model.digest or ""
    return Offer(metadata, chosen, digest, model.created, model.lineage)


def _plain(name: Any) -> bool:
    """Tell whether a file's name may stand in a path: any other could lead out of the follower's folder."""
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return False
    return True
