"""Nothing in the project is about the machine that it was written on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
MACHINE = re.compile(rb"(?<![\w.])/(?:work|root|tmp|home/\w+)/|pythonhosted|(?:extra-)?index-url\s*=")


def test_no_file_names_a_path_or_a_registry_of_a_machine():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [ROOT / name for name in listed.decode().split("\0") if name and "tests" not in Path(name).parts]
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.decode(errors='replace')}"
        for path in files
        if path.is_file()
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if MACHINE.search(line)
    ]
    assert found == []
