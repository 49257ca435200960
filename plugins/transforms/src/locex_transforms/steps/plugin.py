"""The plugin around a step: its configuration's model and the step's class."""

from __future__ import annotations

from typing import Any, ClassVar

from locex.api import Transform
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class StepPlugin:
    """Base of every entry point of ``locex.transform`` here."""

    config_model: ClassVar[type[PluginConfig]]
    step: ClassVar[Any]
    """Makes a `Transform` of a configuration: a class, or a static method."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the step's configuration."""
        return self.config_model

    @hookimpl
    def locex_create_transform(self, config: PluginConfig) -> Transform:
        """Return a step of the pipeline."""
        made: Transform = type(self).step(config)
        return made
