from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest

LATE = """
import click, sys
from locex.errors import QueueFull

@click.command()
@click.option("--times", default=1)
def good(times):
    '''Do good, as often as asked.'''
    raise QueueFull(times, 1.0)

not_a_command = "a word"
"""


@pytest.fixture
def locex(tmp_path):
    """Run the command line with a further distribution on its path."""
    site = tmp_path / "site"
    folder = site / "locex_late-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: locex-late\nVersion: 1.0\n")
    points = {
        "good": "late:good",
        "word": "late:not_a_command",
        "missing": "nowhere.at_all:command",
        "exiting": "exiting:command",
        "raising": "raising:command",
    }
    lines = "".join(f"{name} = {target}\n" for name, target in points.items())
    (folder / "entry_points.txt").write_text(f"[locex.command]\n{lines}")
    (site / "late.py").write_text(LATE)
    (site / "exiting.py").write_text("raise SystemExit(4)")
    (site / "raising.py").write_text("raise RuntimeError('not today')")
    environment = os.environ | {
        "PYTHONPATH": str(site),
        "LOCEX_STATE_FOLDER": str(tmp_path / "state"),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }

    def run(*arguments, **changes):
        command = [sys.executable, "-m", "locex.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment | changes, check=False)

    return run


def test_help_lists_every_command_and_the_broken_ones_with_their_reason(locex):
    answer = locex("--help")
    assert answer.returncode == 0
    assert answer.stdout.startswith("Usage: locex [OPTIONS] COMMAND [ARGS]...")
    lines = {line.split()[0]: line for line in answer.stdout.splitlines() if line.startswith("  ")}
    assert "Show and check installed plugins." in lines["plugins"]
    assert "Do good, as often as asked." in lines["good"]
    for name, reason in (("missing", "ModuleNotFoundError"), ("exiting", "SystemExit: 4"), ("raising", "RuntimeError")):
        assert f"(cannot be loaded: {reason}" in lines[name]
    assert "TypeError: not a click command" in lines["word"]
    assert answer.stderr == ""


@pytest.mark.parametrize("arguments", [(), ("--whatever", "it", "is"), ("--help",)])
def test_a_broken_command_says_why_whatever_follows_it(locex, arguments):
    answer = locex("raising", *arguments)
    assert answer.returncode == 1
    assert answer.stderr == "Error: the command raising cannot be loaded: RuntimeError: not today\n"


def test_an_error_for_people_is_its_message_and_remedy_without_a_traceback(locex):
    answer = locex("good", "--times", "3")
    assert answer.returncode == 1
    assert answer.stdout == ""
    message, remedy = answer.stderr.splitlines()
    assert message == "locex: this node runs and keeps waiting as many jobs as it may (3 waiting)"
    assert remedy == "  post the job again later, or raise LOCEX_QUEUE_LIMIT"


def test_a_setting_that_cannot_be_read_is_named(locex):
    answer = locex("plugins", "list", PORT="nine", LOCEX_PATIENCE="-1")
    assert answer.returncode == 1
    fault, remedy = answer.stderr.splitlines()
    assert fault.startswith("locex: the settings are invalid: PORT: Input should be a valid integer")
    assert fault.endswith("; LOCEX_PATIENCE: Input should be greater than 0")
    assert remedy == "  docs/settings.md lists them all"


def test_an_unknown_command_and_the_version(locex):
    answer = locex("fly")
    assert answer.returncode == 2
    assert "No such command 'fly'" in answer.stderr
    assert locex("--version").stdout == f"locex, version {importlib.metadata.version('locex-core')}\n"


def test_plugins_are_listed_for_people_and_programs(locex, tmp_path):
    only = {"LOCEX_ALLOWED_DISTRIBUTIONS": "locex-core"}
    table = locex("plugins", "list", "--kind", "store", **only).stdout
    assert table.split()[:4] == ["kind", "name", "distribution", "version"]
    assert "sqlite" in table
    (store,) = [
        info
        for info in json.loads(locex("plugins", "list", "--kind", "store", "--json", **only).stdout)
        if info["name"] == "sqlite"
    ]
    assert store["distribution"] == "locex-core"
    assert store["configuration"]["properties"]
    answer = locex("plugins", "check", "sqlite", **only)
    assert answer.returncode == 0
    assert answer.stdout.endswith(": ok\n")
    answer = locex("plugins", "check", "unheard-of", **only)
    assert answer.returncode == 1
    assert "no plugin is named 'unheard-of'" in answer.stderr


def test_a_plugin_at_fault_is_told_and_ends_with_1(locex, plugin_folder):
    environment = {"LOCEX_PLUGIN_FOLDER": str(plugin_folder), "LOCEX_ALLOWED_DISTRIBUTIONS": "locex-fixture-misfits"}
    answer = locex("plugins", "check", "printing", **environment)
    assert answer.returncode == 1
    assert answer.stdout == (
        "transform printing of locex-fixture-misfits 1.0.0:\n  - the field 'undescribed' has no description\n"
    )
    (row,) = json.loads(locex("plugins", "check", "printing", "--json", **environment).stdout)
    assert row["faults"] == ["the field 'undescribed' has no description"]
