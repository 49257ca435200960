"""The app bundle of a run. Nodes ask for it; it carries no code of its own, and locex nodes never run bundles."""

from __future__ import annotations

from flwr.cli.build import build_fab_from_files

FAB_ID = "locex/locex-training"
FAB_VERSION = "1.0.0"

_PYPROJECT = b"""[project]
name = "locex-training"
version = "1.0.0"
description = "A training of locex; its nodes bring their own code"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41.0"]

[tool.flwr.app]
publisher = "locex"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "locex_training:app"
clientapp = "locex_training:app"

[tool.flwr.app.config]
"""


def build_fab() -> bytes:
    """Return the bundle, the same bytes every time."""
    files = {"pyproject.toml": _PYPROJECT, "LICENSE": b"Apache-2.0\n", "locex_training.py": b"app = None\n"}
    return build_fab_from_files(files)[0]
