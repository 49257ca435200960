"""``locex serve``: the AI Local Execution service."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

from locex.settings import NodeSettings, read_settings


@click.command()
@click.option("--host", help="Address to listen on (HOST).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0: a free one (PORT).")
@click.option("--state", "state_folder", type=click.Path(path_type=Path), help="Folder of the service's own state.")
@click.option("--data", "data_folder", type=click.Path(path_type=Path), help="Folder of the local data (DATA_FOLDER).")
@click.option("--config", "configuration_folder", type=click.Path(path_type=Path), help="Folder of ConfigMap files.")
@click.option("--repository", "repository_address", help="The FL Repository (REPOSITORY_ADDRESS).")
@click.option("--inference", is_flag=True, default=None, help="Serve what it trains: the inference service beside it.")
def serve(inference: bool | None, **options: Any) -> None:
    """Run the AI Local Execution service.

    Every option has a setting in the environment; docs/settings.md lists them all.
    """
    from locex.web.serve import serve_as
    from locex_server.app import init_app
    from locex_server.inference.settings import BesideSettings

    settings = read_settings(NodeSettings, **{name: value for name, value in options.items() if value is not None})
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    beside = read_settings(BesideSettings, **({"inference": True} if inference else {}))
    app = init_app(settings)
    if not beside.inference:
        sys.exit(serve_as(settings, app))
    from locex_server.inference.supervision import Inference

    service = Inference(settings, beside)
    app.cleanup_ctx.append(service.lifetime)
    sys.exit(serve_as(settings, app, site=service.site))
