"""``locex collector``: run a Training Collector, and talk to one."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click

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

    sys.exit(run(CollectorSettings(**{key: value for key, value in options.items() if value is not None})))


@collector.command()
@click.argument("training_id")
@click.argument("file", type=click.File("rb"))
@_URL
@_TOKEN
def start(training_id: str, file: Any, url: str, token_file: Path | None) -> None:
    """Start the training TRAINING_ID with the JSON configuration in FILE (- for standard input)."""
    _show(_call("POST", f"{url}/job/config/{training_id}/", token_file, file.read()))


@collector.command()
@click.argument("training_id")
@click.option("--full", is_flag=True, help="Every round with its metrics, participants and failures.")
@_URL
@_TOKEN
def status(training_id: str, full: bool, url: str, token_file: Path | None) -> None:
    """Show where the training TRAINING_ID stands."""
    _show(_call("GET", f"{url}/job/{training_id}" if full else f"{url}/job/status/{training_id}", token_file))


@collector.command()
@click.argument("training_id")
@_URL
@_TOKEN
def stop(training_id: str, url: str, token_file: Path | None) -> None:
    """Stop the training TRAINING_ID."""
    _show(_call("DELETE", f"{url}/job/{training_id}", token_file))


def _call(method: str, url: str, token_file: Path | None, body: bytes | None = None) -> Any:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if token_file:
        headers["Authorization"] = f"Bearer {token_file.read_text(encoding='utf-8').strip()}"
    request = urllib.request.Request(url, data=body, headers=headers, method=method)  # noqa: S310 -- the user's URL
    try:
        with urllib.request.urlopen(request) as response:  # noqa: S310 -- likewise
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise click.ClickException(_problem(error)) from None
    except urllib.error.URLError as error:
        raise click.ClickException(f"the collector at {url} did not answer: {error.reason}") from None


def _problem(error: urllib.error.HTTPError) -> str:
    try:
        content = json.load(error)
        return f"{content['detail']} ({content['remedy']})" if content.get("remedy") else str(content["detail"])
    except (ValueError, KeyError):
        return f"the collector answered {error.code}"


def _show(content: Any) -> None:
    click.echo(json.dumps(content, indent=2))
