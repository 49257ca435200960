"""A mechanism that loses a tensor's shape."""

from dataclasses import replace

from locex.api import Stage
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class Shrinking:
    """A plugin that is its own mechanism."""

    stage = Stage.NOISE
    withholds_metrics = True

    @hookimpl
    def locex_config_model(self):
        return PluginConfig

    @hookimpl
    def locex_create_privacy(self, config):
        return self

    def before_fit(self, config):
        pass

    def outgoing(self, update, config):
        return replace(update, parameters={name: array.ravel() for name, array in update.parameters.items()})

    def state(self):
        return {}

    def restore(self, state):
        pass
