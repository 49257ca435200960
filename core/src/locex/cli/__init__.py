"""The shell of the command line ``locex``: its subcommands are entry points of the group ``locex.command``."""

from locex.cli.shell import main

__all__ = ["main"]
