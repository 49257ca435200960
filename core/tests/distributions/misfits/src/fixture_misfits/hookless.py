import os

from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class Hookless:
    """Forgot the markers."""

    def locex_config_model(self):
        return PluginConfig


class UnknownArgument:
    """Asks for an argument that the hook does not have."""

    @hookimpl
    def locex_config_model(self):
        return PluginConfig

    @hookimpl
    def locex_create_transform(self, config, colour):
        return colour


class NoModel:
    """Returns something else than a configuration model."""

    @hookimpl
    def locex_config_model(self):
        return dict

    @hookimpl
    def locex_create_transform(self, config):
        return config


class RaisingModel:
    """Fails only when it is asked for its model."""

    @hookimpl
    def locex_config_model(self):
        raise ValueError("no model today")

    @hookimpl
    def locex_create_transform(self, config):
        return config


class ExitLater:
    """Ends the process when it is asked for its model."""

    @hookimpl
    def locex_config_model(self):
        os._exit(5)

    @hookimpl
    def locex_create_transform(self, config):
        return config
