"""Making a plugin's package from the template."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from locex.errors import InvalidConfiguration, LocexError

TEMPLATE = Path(__file__).parent / "template"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def new_transform(name: str, folder: Path, *, author: str = "") -> Path:
    """Write a package with the transformation ``name`` into a folder that does not exist yet, and return it.

    The package is called ``locex-<name>``. Raise `InvalidConfiguration` for a name that cannot be one, and
    `LocexError` where copier is missing or the folder is taken.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise InvalidConfiguration(
            f"{name!r} cannot be a plugin's name",
            remedy="use small letters and digits in words joined by _, a letter first",
        )
    if folder.exists():
        raise LocexError(f"{folder} exists already", remedy="name another folder", code="folder-taken")
    try:
        import copier
    except ImportError:
        raise LocexError(
            "making a package needs copier", remedy="pip install 'locex-core[authors]'", code="copier-missing"
        ) from None
    answers = {
        "name": name,
        "module": f"locex_{name}",
        "distribution": f"locex-{name.replace('_', '-')}",
        "class_name": "".join(part.capitalize() for part in name.split("_")),
        "author": author or "Its authors",
    }
    copier.run_copy(str(TEMPLATE), folder, data=answers, defaults=True, quiet=True)
    return folder
