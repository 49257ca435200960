"""``locex plugins``: what is installed, and whether it works."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from locex.plugins.listing import Listing, PluginInfo
from locex.settings import NodeSettings, read_settings

_FILE = click.Path(exists=True, dir_okay=False)


@click.group()
def plugins() -> None:
    """Show and check installed plugins."""


@plugins.command("list")
@click.option("--kind", help="Only this kind, e.g. transform.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every configuration's schema.")
def list_plugins(kind: str | None, as_json: bool) -> None:
    """List every installed plugin, the broken ones with their error."""
    infos = [info for info in asyncio.run(_infos()) if kind in (None, info.kind)]
    if as_json:
        click.echo(json.dumps([info.model_dump(mode="json", exclude_none=True) for info in infos], indent=2))
        return
    table = Table("kind", "name", "distribution", "version", "", box=None, header_style="bold")
    for info in infos:
        note = f"[red]{escape(info.error.message)}[/red]" if info.error else escape(info.description)
        table.add_row(info.kind, info.name, info.distribution, info.version, note)
    Console().print(table)


@plugins.command()
@click.argument("name")
@click.option("--fields", default="{}", help="The plugin's own fields, as JSON.")
@click.option("--examples", type=_FILE, help="An .npz file with x and y to try it on.")
@click.option("--model", type=_FILE, help="A builder's artefact; with --examples a tiny round is trained.")
@click.option("--data-folder", type=click.Path(exists=True, file_okay=False), help="Where a data source reads.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(name: str, fields: str, as_json: bool, **given: str | None) -> None:
    """Try the plugins called NAME in processes of their own and say whether each keeps its contract."""
    # imported here: it needs NumPy, which the other commands do without
    from locex.testing.suite import check as checked

    trial = {key: value for key, value in given.items() if value is not None}
    found = asyncio.run(checked(name, fields=_fields(fields), **trial))
    if not found:
        raise click.ClickException(f"no plugin is named {name!r}; `locex plugins list` shows all")
    if as_json:
        rows = [info.model_dump(mode="json", exclude_none=True) | asdict(verdict) for info, verdict in found.values()]
        click.echo(json.dumps(rows, indent=2))
    else:
        for label, (_, verdict) in found.items():
            click.echo(f"{label}:{'' if verdict.faults else ' ok'}")
            for line in (*verdict.faults, *verdict.notes):
                click.echo(f"  - {line}")
    if any(verdict.faults for _, verdict in found.values()):
        raise SystemExit(1)


def _fields(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--fields") from None
    if not isinstance(content, dict):
        raise click.BadParameter("a JSON object is expected", param_hint="--fields")
    return content


async def _infos() -> list[PluginInfo]:
    return await Listing.of(read_settings(NodeSettings)).all()
