"""The follower that the settings ask for."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from locex.settings import read_settings
from locex_inference.following.follower import Follower
from locex_inference.following.guard import Guard
from locex_inference.following.metrics import FollowMetrics
from locex_inference.following.serving import FollowedVersions
from locex_inference.following.settings import FollowSettings
from locex_inference.models.loading import Loader
from locex_inference.models.options import ModelOptions
from locex_inference.models.repository import ModelFolder
from locex_inference.settings import InferenceSettings


def following(
    settings: InferenceSettings, loader: Loader, folder: ModelFolder | None, registry: CollectorRegistry
) -> Follower | None:
    """Return the follower, None where nothing is followed; raise `InvalidConfiguration`.

    What ``<models folder>/<model>/model.json`` says counts for followed models too.
    """
    chosen = read_settings(FollowSettings)
    if not chosen.follow:
        return None
    options = folder.options if folder is not None else _no_options
    return Follower(
        chosen,
        FollowedVersions(loader, options, as_trained=chosen.follow_pipeline),
        Guard(chosen, interpreter=settings.worker_python),
        folder=settings.state_folder / "followed",
        max_bytes=settings.max_model_mb << 20,
        metrics=FollowMetrics(registry),
    )


def _no_options(_: str) -> ModelOptions:
    return ModelOptions()
