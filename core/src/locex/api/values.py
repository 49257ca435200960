"""Types of which the others are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Scalar: TypeAlias = "bool | int | float | str | bytes"
Parameters: TypeAlias = "dict[str, Array]"
Incoming: TypeAlias = "Mapping[str, Array] | Sequence[Array]"
"""Parameters as a wire delivers them: by name, or only in order."""
