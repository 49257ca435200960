"""Artefacts that are programs: whoever trains or serves them runs what their author wrote."""

from __future__ import annotations

from locex.api import LoadContext
from locex.errors import InvalidModel


def require_programs(context: LoadContext, kind: str, instead: str) -> None:
    """Raise `InvalidModel` (``program-refused``) where this site takes no programs; call it before one is loaded.

    ``kind`` names the format, ``instead`` what builder or inferencer take that is none.
    """
    if not context.allow_programs:
        raise InvalidModel(
            f"the artefact is a program ({kind}), which this site refuses (LOCEX_ALLOW_PROGRAMS)",
            remedy=f"upload {instead}, or ask the operator to set LOCEX_ALLOW_PROGRAMS=1",
            code="program-refused",
        )
