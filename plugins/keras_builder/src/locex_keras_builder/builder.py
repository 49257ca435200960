"""The builder ``keras``."""

from __future__ import annotations

from locex.api import BuildContext, TrainingSession
from locex.hookspecs import hookimpl
from locex_keras_builder.options import KerasBuilderConfig


class KerasBuilder:
    """Builds a Keras training session from ``.keras``, a SavedModel, or a named architecture with weights."""

    @hookimpl
    def locex_config_model(self) -> type[KerasBuilderConfig]:
        """Return what the builder takes of a job."""
        return KerasBuilderConfig

    @hookimpl
    def locex_create_builder(self, config: KerasBuilderConfig, context: BuildContext) -> TrainingSession:
        """Return a session; raise `InvalidModel`, `InvalidConfiguration` or `FormatMismatch` where parts do not fit."""
        from locex_keras_builder.session import KerasSession

        return KerasSession(context, config)
