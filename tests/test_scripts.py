"""The README's two commands on a machine that they cannot run on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OLD = """#!/bin/sh
[ "$1" = --version ] && echo Python 3.9.2
[ "$1" = --version ]
"""


@pytest.mark.parametrize("script", ["demo", "test"])
def test_an_unsuitable_python_is_named_with_what_to_do(script, tmp_path):
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    old = tmp_path / "python3"
    old.write_text(OLD)
    old.chmod(0o755)
    done = subprocess.run([ROOT / script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "locex needs Python 3.11, 3.12 or 3.13 with venv; found: Python 3.9.2.",
        "Install one, or name it: PYTHON=/path/to/python3.11",
    ]
