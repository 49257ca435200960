"""``locex plugins``: what is installed, and whether it works."""

from __future__ import annotations

import asyncio
import json

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from locex.plugins.check import faults_of
from locex.plugins.listing import Listing, PluginInfo
from locex.settings import NodeSettings, read_settings


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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(name: str, as_json: bool) -> None:
    """Import the plugins called NAME in a process of their own and say whether each keeps its contract."""
    infos = asyncio.run(_infos(name))
    if not infos:
        raise click.ClickException(f"no plugin is named {name!r}; `locex plugins list` shows all")
    faults = {id(info): faults_of(info) for info in infos}
    if as_json:
        rows = [info.model_dump(mode="json", exclude_none=True) | {"faults": faults[id(info)]} for info in infos]
        click.echo(json.dumps(rows, indent=2))
    else:
        for info in infos:
            verdict = "" if faults[id(info)] else " ok"
            click.echo(f"{info.kind} {info.name} of {info.distribution} {info.version}:{verdict}")
            for fault in faults[id(info)]:
                click.echo(f"  - {fault}")
    if any(faults.values()):
        raise SystemExit(1)


async def _infos(name: str | None = None) -> list[PluginInfo]:
    return await Listing.of(read_settings(NodeSettings)).all(name=name)
