"""The builder ``pytorch``."""

from __future__ import annotations

from locex.api import BuildContext, TrainingSession
from locex.hookspecs import hookimpl
from locex_torch_builder.options import PytorchBuilderConfig


class PytorchBuilder:
    """Builds a PyTorch training session from an artefact: named architecture, torch.export archive or TorchScript."""

    @hookimpl
    def locex_config_model(self) -> type[PytorchBuilderConfig]:
        """Return what the builder takes of a job."""
        return PytorchBuilderConfig

    @hookimpl
    def locex_create_builder(self, config: PytorchBuilderConfig, context: BuildContext) -> TrainingSession:
        """Return a session; raise `InvalidModel`, `InvalidConfiguration` or `FormatMismatch` where parts do not fit."""
        from locex_torch_builder.session import PytorchSession

        return PytorchSession(context, config)
