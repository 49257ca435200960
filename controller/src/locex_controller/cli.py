"""``locex collector``: run a Training Collector, and talk to one."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from locex.cli.client import Client
from locex.settings import read_settings

_URL = click.option(
    "--url", default="http://127.0.0.1:8000", envvar="LOCEX_COLLECTOR_URL", show_default=True, help="The collector."
)
_TOKEN = click.option(
    "--token-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file with a bearer token."
)


@click.group()
def collector() -> None:
    """Run the server's side of federated trainings."""


@collector.command()
@click.option("--host", help="Address of the REST API (HOST).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the REST API (PORT).")
@click.option("--state-folder", type=click.Path(file_okay=False, path_type=Path), help="LOCEX_STATE_FOLDER.")
def serve(**options: Any) -> None:
    """Serve until interrupted; trainings that were not over go on."""
    from locex_controller.service import run
    from locex_controller.settings import CollectorSettings

    settings = read_settings(CollectorSettings, **{name: value for name, value in options.items() if value is not None})
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    sys.exit(run(settings))


@collector.command()
@click.argument("training_id")
@click.argument("file", type=click.File("rb"))
@_URL
@_TOKEN
def start(training_id: str, file: Any, url: str, token_file: Path | None) -> None:
    """Start the training TRAINING_ID with the JSON configuration in FILE (- for standard input)."""
    headers = {"Content-Type": "application/json"}
    _show(url, token_file, "POST", f"job/config/{quote(training_id)}/", data=file.read(), headers=headers)


@collector.command()
@click.argument("training_id")
@click.option("--full", is_flag=True, help="Every round with its metrics, participants and failures.")
@_URL
@_TOKEN
def status(training_id: str, full: bool, url: str, token_file: Path | None) -> None:
    """Show where the training TRAINING_ID stands."""
    path = "job" if full else "job/status"
    _show(url, token_file, "GET", f"{path}/{quote(training_id)}")


@collector.command()
@click.argument("training_id")
@_URL
@_TOKEN
def stop(training_id: str, url: str, token_file: Path | None) -> None:
    """Stop the training TRAINING_ID."""
    _show(url, token_file, "DELETE", f"job/{quote(training_id)}")


def _show(url: str, token_file: Path | None, method: str, path: str, **arguments: Any) -> None:
    async def call() -> Any:
        async with Client(url, token_file) as client:
            return await client.call(method, path, **arguments)

    click.echo(json.dumps(asyncio.run(call()), indent=2))
