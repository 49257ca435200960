"""What optimizer and scheduler plugins are called with: the target of `BuildContext.optimizer` and ``scheduler``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from locex_keras_builder.kerases import Keras


@dataclass(slots=True)
class CompileTarget:
    """A session as plugins see it: whose Keras it is, and what they may say about ``compile()``.

    An optimizer plugin returns an optimizer of ``keras`` and may set ``jit_compile``; a scheduler plugin returns a
    `PersistentCallback` of ``keras``. ``warn`` puts a sentence among the warnings of the job's record.
    """

    keras: Keras
    jit_compile: bool | None = None
    warn: Callable[[str], None] = lambda _: None


@runtime_checkable
class PersistentCallback(Protocol):
    """A callback of Keras whose state outlives rounds and restarts."""

    def state(self) -> dict[str, Any]:
        """Return JSON that `restore` takes; weights that a round restores at its end are no part of it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
