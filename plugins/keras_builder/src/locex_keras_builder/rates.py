"""The learning rate over a whole training, as the configuration's entries name it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class LearningRate:
    """Follows the entries; what a callback made of the old rate holds for a new one."""

    def __init__(self, optimizer: Any, entry_rate: float | None) -> None:
        """Begin with an optimizer that has its full rate, and the first entry's."""
        self._optimizer = optimizer
        self._entry_rate = entry_rate
        self._full = self.now

    @property
    def now(self) -> float:
        """The rate of the next step."""
        return float(self._optimizer.learning_rate)

    def follow(self, rate: float | None) -> None:
        """Take up an entry's rate as the full rate if it is another than the entry's before."""
        if rate is None or rate == self._entry_rate:
            return
        self._entry_rate = rate
        unreduced = math.isclose(self.now, self._full, rel_tol=1e-6)
        self._optimizer.learning_rate = rate if unreduced else self.now * rate / self._full
        self._full = rate

    def state(self) -> dict[str, Any]:
        """Return JSON that `restore` takes."""
        return {"entry_rate": self._entry_rate, "full": self._full, "now": self.now}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        self._entry_rate, self._full = state["entry_rate"], state["full"]
        self._optimizer.learning_rate = state["now"]
