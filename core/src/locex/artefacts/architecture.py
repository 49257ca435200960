"""A named architecture: made by its plugin, and written as the artefact of `locex.artefacts.manifest`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from locex.api import LoadContext
from locex.artefacts.manifest import Manifest, write_artefact
from locex.errors import InvalidConfiguration, InvalidModel, UnknownPlugin
from locex.schemas.base import validate


def create(manifest: Manifest, context: LoadContext) -> Any:
    """Return the model that a manifest names; raise `InvalidModel` where it does not fit its architecture."""
    try:
        return context.architecture(manifest.architecture, manifest.config, manifest.seed)
    except InvalidConfiguration as error:
        raise InvalidModel(
            f"the artefact's manifest does not fit the architecture {manifest.architecture!r}: {error.message}",
            remedy="correct the manifest's config, and upload the artefact as a new version",
        ) from error


def write_initial(
    path: Path,
    *,
    library: str,
    architecture: str,
    config: Mapping[str, Any],
    seed: int,
    weights_of: Callable[[Any], bytes],
) -> None:
    """Write an artefact with weights drawn from ``seed``: equal arguments give equal bytes.

    ``weights_of`` returns a model's weights as safetensors. Raise `UnknownPlugin` or `InvalidConfiguration` where the
    architecture or its fields are wrong.
    """
    name = f"{library}.{architecture}"
    plugins = {entry.name: entry for entry in entry_points(group="locex.architecture")}
    if name not in plugins:
        raise UnknownPlugin("architecture", name, plugins)
    plugin = plugins[name].load()()
    fields = validate(plugin.locex_config_model(), dict(config), at="/config")
    model = plugin.locex_create_architecture(fields, seed)
    manifest = Manifest(library=library, architecture=architecture, config=dict(config), seed=seed)
    write_artefact(path, manifest, weights_of(model))


def write_trained(folder: Path, manifest: Manifest, weights: bytes) -> Path:
    """Write ``model.zip``: the artefact with new weights, which are no longer those drawn from the seed."""
    path = folder / "model.zip"
    write_artefact(path, manifest.model_copy(update={"seed": None}), weights)
    return path
