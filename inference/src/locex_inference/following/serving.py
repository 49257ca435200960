"""Followed versions as the service loads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from locex.errors import InvalidModel
from locex.pipelines.saved import SavedPipeline
from locex_inference.errors import UnknownServed
from locex_inference.following.shelf import Kept
from locex_inference.inferencers.question import Question
from locex_inference.models.loading import Loader
from locex_inference.models.options import ModelOptions
from locex_inference.models.registry import STABLE


class FollowedVersions:
    """What following asks of the models that are served, over the service's own loader and registry."""

    def __init__(self, loader: Loader, options: Callable[[str], ModelOptions], *, as_trained: bool) -> None:
        """``options`` of a model by name; ``as_trained``: serve it behind the pipeline of its training."""
        self._loader = loader
        self._options = options
        self._as_trained = as_trained

    async def take(self, kept: Kept, path: Path) -> None:
        """Load a version and serve it; return when it answers, or raise why it does not and never did."""
        name = kept.metadata.model_name
        await self._loader.load(
            name,
            kept.version,
            path,
            self._options_of(name),
            digest=kept.digest,
            library=kept.metadata.meta.library,
            pipeline=_pipeline_of(kept),
        )

    def stable(self, model: str) -> str | None:
        """Return the version that answers requests without a version; None where none does."""
        try:
            return self._loader.registry.labels(model).get(STABLE)
        except UnknownServed:
            return None

    def noted(self, model: str, version: str, reason: str) -> None:
        """Have the index tell why an offered version does not serve; one that does serve is left alone."""
        try:
            served = {one.version for one in self._loader.registry.versions(model)}
        except UnknownServed:
            served = set()
        if version not in served:
            self._loader.registry.note(model, version, "UNAVAILABLE", reason)

    def question(self, kept: Kept, path: Path) -> Question:
        """Return what an evaluation loads: the file, as the model's options have it, without pipelines."""
        name, conditions = kept.metadata.model_name, self._loader.conditions
        bare = {"pipeline": None, "preprocessing": None, "postprocessing": None}
        options = self._options_of(name).model_copy(update=bare)
        return Question(
            artefact=path.resolve(),
            digest=kept.digest,
            name=name,
            version=kept.version,
            library=kept.metadata.meta.library,
            options=options,
            threads=options.threads or conditions.threads,
            allow_programs=conditions.allow_programs,
        )

    def _options_of(self, name: str) -> ModelOptions:
        options = self._options(name)
        if self._as_trained and options.pipeline is None and options.preprocessing is None:
            return options.model_copy(update={"pipeline": "training"})
        return options


def _pipeline_of(kept: Kept) -> SavedPipeline | None:
    content = kept.lineage.get("pipeline")
    if content is None:
        return None
    try:
        return SavedPipeline.model_validate(content)
    except ValidationError as error:
        raise InvalidModel(
            f"the lineage's pipeline is none: {error.error_count()} faults", remedy="train again"
        ) from None
