"""``locex job``: submit, watch and stop jobs of a running service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click
from rich.console import Console
from rich.table import Table

from locex.cli.client import Client

ResultT = TypeVar("ResultT")


@click.group()
@click.option("--url", envvar="LOCEX_URL", default="http://127.0.0.1:9050", show_default=True, help="The service.")
@click.option("--token-file", type=click.Path(path_type=Path), envvar="LOCEX_TOKEN_FILE", help="File with a token.")
@click.pass_context
def job(ctx: click.Context, url: str, token_file: Path | None) -> None:
    """Submit, watch and stop training jobs."""
    ctx.obj = Client(url, token_file)


@job.command()
@click.argument("file", type=click.File("rb"))
@click.option("--training-id", help="The training; the file's training_id where absent.")
@click.option("--watch", "follow", is_flag=True, help="Watch it to its end.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def submit(client: Client, file: Any, training_id: str | None, follow: bool, as_json: bool) -> None:
    """Post the job configuration in FILE (- for standard input)."""
    try:
        content = json.load(file)
    except ValueError as error:
        raise click.ClickException(f"{file.name} is not JSON: {error}") from None
    named = training_id or (content.get("training_id") if isinstance(content, dict) else None)
    if named is None:
        raise click.ClickException("no training id: give --training-id, or training_id in the file")
    accepted = _run(client, lambda it: it.call("POST", f"job/config/{_id(named)}/", json=content))
    if as_json:
        click.echo(json.dumps(accepted, indent=2))
    else:
        click.echo(f"training {named} was taken (run {accepted['run_id']})")
        for warning in accepted["warnings"]:
            click.echo(f"  note: {warning}")
    if follow:
        _watch(client, str(named), as_json=as_json)


@job.command()
@click.argument("training_id", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(client: Client, training_id: str | None, as_json: bool) -> None:
    """Show one training, or the newest runs of all."""
    if training_id is not None:
        record = _run(client, lambda it: it.call("GET", f"job/{_id(training_id)}"))
        click.echo(json.dumps(record, indent=2)) if as_json else _show(record)
        return
    page = _run(client, lambda it: it.call("GET", "jobs"))
    if as_json:
        click.echo(json.dumps(page, indent=2))
        return
    table = Table("training", "state", "round", "run", box=None, header_style="bold")
    for record in page["jobs"]:
        table.add_row(record["training_id"], record["state"], _progress(record), record["run_id"])
    Console().print(table)


@job.command()
@click.argument("training_id")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
@click.pass_obj
def watch(client: Client, training_id: str, as_json: bool) -> None:
    """Follow a training until it is over; the exit code is 0 if it finished."""
    _watch(client, training_id, as_json=as_json)


@job.command()
@click.argument("training_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def stop(client: Client, training_id: str, as_json: bool) -> None:
    """Stop a training."""
    record = _run(client, lambda it: it.call("DELETE", f"job/{_id(training_id)}"))
    click.echo(json.dumps(record, indent=2)) if as_json else _show(record)


def _watch(client: Client, training_id: str, *, as_json: bool) -> None:
    async def follow(it: Client) -> dict[str, Any]:
        async for kind, content in it.events(f"job/{_id(training_id)}/events"):
            if as_json:
                click.echo(json.dumps({"event": kind} | content))
            else:
                click.echo(_line(kind, content))
        record: dict[str, Any] = await it.call("GET", f"job/{_id(training_id)}")
        return record

    record = _run(client, follow)
    if not as_json:
        _show(record)
    if record["state"] != "FINISHED":
        raise SystemExit(1)


def _run(client: Client, act: Callable[[Client], Awaitable[ResultT]]) -> ResultT:
    async def opened() -> ResultT:
        async with client:
            return await act(client)

    return asyncio.run(opened())


def _id(training_id: object) -> str:
    """Return an id as one segment of a path, whatever is in it."""
    return quote(str(training_id), safe="")


def _line(kind: str, content: dict[str, Any]) -> str:
    if kind == "state":
        return str(content["state"]) + (f": {content['reason']}" if content.get("reason") else "")
    if kind == "round":
        numbers = {**_prefixed("train", content.get("train")), **_prefixed("global", content.get("evaluation"))}
        listed = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items() if value is not None)
        return f"round {content['round']}/{content.get('rounds') or '?'}: {listed}"
    return f"{kind}: " + ", ".join(f"{value}" for value in content.values())


def _prefixed(prefix: str, numbers: dict[str, Any] | None) -> dict[str, Any]:
    return {f"{prefix} {name}": value for name, value in (numbers or {}).items()}


def _progress(record: dict[str, Any]) -> str:
    return f"{record['round']}/{record.get('rounds') or '?'}"


def _show(record: dict[str, Any]) -> None:
    click.echo(f"training {record['training_id']}: {record['state']}, round {_progress(record)}")
    for warning in record["warnings"]:
        click.echo(f"  note: {warning}")
    if failure := record.get("failure"):
        click.echo(f"  {failure['kind']}: {failure['message']}")
        if failure["remedy"]:
            click.echo(f"  remedy: {failure['remedy']}")
    if model := record.get("model"):
        click.echo(f"  model: {model['model_name']} {model['model_version']} (GET /job/{record['training_id']}/model)")
