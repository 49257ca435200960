"""``locex plugin new``: a plugin of your own."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def plugin() -> None:
    """Write a plugin."""


@plugin.command()
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), help="Where it is written; locex-NAME if absent.")
@click.option("--author", default="", help="Your name, for pyproject.toml.")
def new(name: str, folder: Path | None, author: str) -> None:
    """Write the package of a transformation called NAME: code, tests, README, CI; it works as it stands."""
    # imported here: it needs copier
    from locex.authoring.new import new_transform

    made = new_transform(name, folder or Path(f"locex-{name.replace('_', '-')}"), author=author)
    click.echo(f"{made} is a package with the transformation {name}. Next:")
    click.echo(f"  pip install -e '{made}[test]' && pytest {made}")
    click.echo(f"  locex plugins check {name}")
