"""Loading and unloading as the protocol's requests ask: of the folder of models, or of files that came along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from locex.errors import InvalidModel, LocexError
from locex_inference.errors import InferenceError, UnknownServed
from locex_inference.inferencers.served import digest_of
from locex_inference.models.loading import Loader
from locex_inference.models.options import ModelOptions
from locex_inference.models.repository import ModelFolder, artefact_in, options_of, safe_name, safe_path, version_key


class ModelRepository:
    """What is served of a folder of models, and of files that requests bring."""

    def __init__(self, loader: Loader, folder: ModelFolder | None = None) -> None:
        """``folder`` is the operator's, if there is one."""
        self._loader = loader
        self._folder = folder

    async def load_all(self) -> list[LocexError]:
        """Load the newest versions of every model in the folder; return what went wrong, which the index shows too."""
        faults: list[LocexError] = []
        for model in self._folder.models() if self._folder else ():
            try:
                await self.load(model)
            except LocexError as error:
                faults.append(error)
        return faults

    async def load(
        self, model: str, config: Mapping[str, Any] | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        """Load a model as a request asks: of the files, else of the folder; ``config`` takes the place of model.json.

        Of the folder come the newest versions that are to be kept, and those with a label or a part of the canary;
        versions that are served and did not change stay. Raise the first fault after the others were loaded.
        """
        model = safe_name(model)
        if files:
            options = options_of(config) if config is not None else self._known_options(model)
            version, named = self._versioned(model, files)
            await self._loader.load(model, version, named, options)
            return
        if self._folder is None or not self._folder.versions(model):
            raise UnknownServed(
                f"there is no {model!r} in the folder of models", remedy="send its files, or put it there"
            )
        options = options_of(config) if config is not None else self._folder.options(model)
        faults: list[LocexError] = []
        for version in self._wanted(model, options):
            try:
                await self._load_of_folder(model, version, options, unchanged=config is None)
            except (LocexError, OSError) as error:
                faults.append(error if isinstance(error, LocexError) else InvalidModel(str(error)))
        if faults:
            raise faults[0]

    async def _load_of_folder(self, model: str, version: str, options: ModelOptions, *, unchanged: bool) -> None:
        assert self._folder is not None
        folder = self._folder.version(model, version)
        served = self._served(model).get(version)
        if unchanged and served is not None and served[1] == options and served[0] == digest_of(artefact_in(folder)):
            return
        await self._loader.load(model, version, folder, options)

    def _wanted(self, model: str, options: ModelOptions) -> list[str]:
        """Return the versions of the folder that are to be loaded, oldest first."""
        assert self._folder is not None
        versions = self._folder.versions(model)
        if chosen := self._folder.chosen(model):
            return [chosen]
        named = {*options.labels.values(), *options.canary}
        newest = {*versions[-options.keep :]}
        return [version for version in versions if version in newest or version in named]

    def _versioned(self, model: str, files: Mapping[str, bytes]) -> tuple[str, dict[str, bytes]]:
        """Return the version that the files' paths name, or the next number, and the files by path within it."""
        paths = {safe_path(name): content for name, content in files.items()}
        first = {parts[0] for parts in paths}
        if len(first) == 1 and all(len(parts) > 1 for parts in paths):
            return first.pop(), {"/".join(parts[1:]): content for parts, content in paths.items()}
        numbers = [int(version) for version in self._known_versions(model) if version.isdigit()]
        return str(max(numbers, default=0) + 1), {"/".join(parts): content for parts, content in paths.items()}

    def _known_versions(self, model: str) -> list[str]:
        loaded = {entry.version for entry in self._loader.registry.index() if entry.name == model}
        stored = self._folder.versions(model) if self._folder else []
        return sorted({*loaded, *stored}, key=version_key)

    def _known_options(self, model: str) -> ModelOptions:
        return self._folder.options(model) if self._folder else ModelOptions()

    def _served(self, model: str) -> dict[str, tuple[str, ModelOptions]]:
        try:
            versions = self._loader.registry.versions(model)
        except InferenceError:
            return {}
        return {one.version: (one.digest, one.options) for one in versions}
