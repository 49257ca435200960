"""``locex store``: what an operator does with the store of a service that does not run."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path

import click

from locex.settings import NodeSettings, ServiceSettings, read_secret, read_settings, scheme_of
from locex.store.lock import FolderLock
from locex.store.migration import Migration, Report
from locex.store.opening import store_at
from locex.store.protocol import Store


@click.group()
def store() -> None:
    """Work on the store of a service that does not run."""


@store.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--state", "state_folder", type=click.Path(path_type=Path), help="The node's state folder.")
@click.option("--rename-dataset", "renamed", multiple=True, metavar="OLD=NEW", help="Another name for a ledger's data.")
def migrate(source: str, target: str, state_folder: Path | None, renamed: tuple[str, ...]) -> None:
    """Copy everything from one store into another and verify it; what is there already stays.

    FROM and TO are URLs like sqlite: (the state folder), sqlite:/a/folder or mongodb://host/database. One with a
    password is read from a file that file:PATH names.
    """
    given = {} if state_folder is None else {"state_folder": state_folder}
    settings = read_settings(NodeSettings, **given)
    datasets = dict(_pair(text) for text in renamed)
    report = asyncio.run(_migrate(settings, _url(source), _url(target), datasets))
    click.echo(
        f"{report.models} models, {report.jobs} jobs, {report.events} events, {report.ledgers} ledgers,"
        f" {len(report.blobs)} blobs are in the target and verified"
    )
    for fault in report.faults:
        click.echo(f"  not moved: {fault}", err=True)
    if report.empty:
        raise click.ClickException("the source is empty; is FROM right?")
    if report.faults:
        raise SystemExit(1)


async def _migrate(settings: ServiceSettings, source: str, target: str, datasets: dict[str, str]) -> Report:
    """Own the state folder and both stores: with a service on either of them this raises `StoreUnavailable`."""
    async with AsyncExitStack() as stack:
        stack.enter_context(FolderLock(settings.state_folder))
        stores = []
        for url in (source, target):
            opened = _store(settings, url)
            await opened.open()
            stack.push_async_callback(opened.close)
            stores.append(opened)
        return await Migration(*stores, datasets=datasets, tell=click.echo).run()


def _store(settings: ServiceSettings, url: str) -> Store:
    name = scheme_of(url)
    fields = settings.store_fields if name == settings.store_location()[0] else {}
    return store_at(settings, name, url, fields)


def _url(given: str) -> str:
    if given.startswith("file:"):
        return read_secret(Path(given.removeprefix("file:").removeprefix("//")), "file:PATH")
    if re.search(r"://[^/@]*:[^/]*@", given):
        raise click.UsageError("everybody on the machine sees a password here: put the URL in a file, give file:PATH")
    if not scheme_of(given):
        raise click.UsageError("a store is named by its URL: sqlite:, sqlite:/a/folder, mongodb://…, or file:PATH")
    return given


def _pair(text: str) -> tuple[str, str]:
    old, _, new = text.partition("=")
    if not old or not new:
        raise click.UsageError(f"{text!r} is not OLD=NEW")
    return old, new
