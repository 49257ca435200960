"""``locex``: finds its subcommands among the installed packages and imports the one that is called."""

from __future__ import annotations

import importlib.metadata
import sys

import click

from locex.errors import LocexError

GROUP = "locex.command"


class Shell(click.Group):
    """A group whose commands are entry points; a package that is broken costs only its own command."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click passes it
        """Return the names of all installed commands."""
        return sorted({point.name for point in importlib.metadata.entry_points(group=GROUP)} | {*self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command that is called; `click` calls this for every command when help is shown."""
        points = importlib.metadata.entry_points(group=GROUP, name=cmd_name)
        if not points:
            return super().get_command(ctx, cmd_name)
        try:
            command = next(iter(points)).load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- a broken package may raise anything
            return _broken(cmd_name, error)
        return command if isinstance(command, click.Command) else _broken(cmd_name, TypeError("not a click command"))


def _broken(name: str, error: BaseException) -> click.Command:
    reason = f"{type(error).__name__}: {error}"

    def fail() -> None:
        raise click.ClickException(f"the command {name} cannot be loaded: {reason}")

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    short_help = f"(cannot be loaded: {reason})"
    return click.Command(name, callback=fail, short_help=short_help, context_settings=anything, add_help_option=False)


@click.group(cls=Shell, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="locex-core", prog_name="locex")
def locex() -> None:
    """AI Local Execution: trains a federated model next to its data, and serves it.

    Settings come from the environment; docs/settings.md lists them.
    """


def main() -> None:
    """Run the command line; a `LocexError` is one line for people, not a traceback."""
    try:
        locex.main(prog_name="locex")
    except LocexError as error:
        click.echo(f"locex: {error.message}" + (f"\n  {error.remedy}" if error.remedy else ""), err=True)
        sys.exit(1)
