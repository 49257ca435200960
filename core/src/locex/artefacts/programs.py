"""Artefacts that are programs: whoever trains them runs what their author wrote."""

from __future__ import annotations

from locex.api import BuildContext
from locex.errors import InvalidModel


def require_programs(context: BuildContext, kind: str, instead: str) -> None:
    """Raise `InvalidModel` (``program-refused``) where this site takes no programs; call it before one is loaded.

    ``kind`` names the format, ``instead`` what the builder takes that is none.
    """
    if not context.allow_programs:
        raise InvalidModel(
            f"the artefact is a program ({kind}), which this site refuses (LOCEX_ALLOW_PROGRAMS)",
            remedy=f"upload {instead}, or ask the operator to set LOCEX_ALLOW_PROGRAMS=1",
            code="program-refused",
        )
