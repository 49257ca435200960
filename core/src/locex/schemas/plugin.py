"""The base of every plugin's configuration."""

from __future__ import annotations

from locex.schemas.base import Configuration


class PluginConfig(Configuration):
    """What a user may write for one plugin.

    Subclass it beside the code that uses it. Describe every field (``Field(description=…)``), with its unit where it
    has one, and give the default of the framework that it is for. The module that defines it imports no framework.
    """
