"""The refusal of a torch.export archive, with the remedy."""

from __future__ import annotations

from typing import NoReturn

from locex.errors import InvalidModel

REMEDY = (
    'export it with torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)) on the CPU '
    "and write it with torch.export.save"
)


def refuse(reason: str) -> NoReturn:
    """Raise the error for an archive that is not taken."""
    raise InvalidModel(f"the torch.export archive is not taken: {reason}", remedy=REMEDY)
