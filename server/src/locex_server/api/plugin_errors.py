"""What any route that makes plugins work may answer about them."""

from __future__ import annotations

from locex.errors import (
    BrokenPlugin,
    CrashedPlugin,
    DuplicatePlugin,
    IncompatiblePlugin,
    InterpreterUnavailable,
    RefusedPlugin,
    UnknownPlugin,
)

PLUGIN_ERRORS = (
    UnknownPlugin,
    DuplicatePlugin,
    IncompatiblePlugin,
    RefusedPlugin,
    BrokenPlugin,
    CrashedPlugin,
    InterpreterUnavailable,
)
