"""``locex inference``: serve models."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

from locex.settings import read_settings


@click.group()
def inference() -> None:
    """Serve models with the Open Inference Protocol."""


@inference.command()
@click.option("--host", help="Address to listen on (HOST).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of HTTP (PORT).")
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="Port of gRPC (LOCEX_GRPC_PORT).")
@click.option("--grpc/--no-grpc", default=None, help="Serve gRPC too, or HTTP only (LOCEX_GRPC).")
@click.option(
    "--models-folder", type=click.Path(file_okay=False, path_type=Path), help="The models (LOCEX_MODELS_FOLDER)."
)
def serve(**options: Any) -> None:
    """Serve until interrupted."""
    from locex_inference.serve import run
    from locex_inference.settings import InferenceSettings

    settings = read_settings(InferenceSettings, **{name: value for name, value in options.items() if value is not None})
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    sys.exit(run(settings))
