"""Which distributions are installed, from their metadata; run as a module for another interpreter's."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def read_libraries(folders: Sequence[Path] = ()) -> dict[str, str]:
    """Return distributions with their versions; of several of one name, that which imports find."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=[*sys.path, *map(str, folders)]):
        name = distribution.metadata["Name"]
        if name:  # else it is half removed
            found.setdefault(name, distribution.version)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(read_libraries([Path(folder) for folder in sys.argv[1:]])))
