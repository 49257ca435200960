"""The builder ``pytorch``."""

from __future__ import annotations

from locex.api import BuildContext, TrainingSession
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class PytorchBuilderConfig(PluginConfig):
    """The builder takes nothing beyond the job's own fields."""


class PytorchBuilder:
    """Builds a PyTorch training session from an artefact: named architecture with weights, or TorchScript."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the empty configuration."""
        return PytorchBuilderConfig

    @hookimpl
    def locex_create_builder(self, config: PluginConfig, context: BuildContext) -> TrainingSession:  # noqa: ARG002 -- the hook's signature
        """Return a session; raise `InvalidModel`, `InvalidConfiguration` or `FormatMismatch` where parts do not fit."""
        from locex_torch_builder.session import PytorchSession

        return PytorchSession(context)
