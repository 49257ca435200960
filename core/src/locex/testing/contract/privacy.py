"""A privacy mechanism: what leaves has the names and types of what came, and nothing is changed in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from locex.api import Ledger, PrivacyMechanism, Stage, Update
from locex.errors import PrivacyRefused
from locex.testing.contract.verdict import Verdict


class MemoryLedger:
    """A ledger for tests, in memory (`locex.api.Ledger`)."""

    def __init__(self) -> None:
        """Begin with nothing charged."""
        self._events: list[dict[str, Any]] = []

    def read(self) -> tuple[int, list[dict[str, Any]]]:
        """Return version and events."""
        return len(self._events), list(self._events)

    def append(self, version: int, event: dict[str, Any]) -> bool:
        """Charge an event."""
        if version != len(self._events):
            return False
        self._events.append(event)
        return True


def memory_ledgers() -> Callable[[str], Ledger]:
    """Return the function of a `PrivacyContext` that gives the ledger of a unit, here one in memory."""
    ledgers: dict[str, Ledger] = {}
    return lambda unit: ledgers.setdefault(unit, MemoryLedger())


def try_mechanism(mechanism: PrivacyMechanism) -> Verdict:
    """Send a small update through a mechanism."""
    verdict = Verdict()
    if mechanism.stage is Stage.TRAIN:
        verdict.notes.append("not tried: it acts in training, and there is no session here")
        return verdict
    generator = np.random.default_rng(5)
    reference = {"w": generator.normal(size=(3, 2)).astype("float32"), "b": np.zeros(2, "float32")}
    trained = {name: array + np.float32(0.1) for name, array in reference.items()}
    for array in (*reference.values(), *trained.values()):
        array.flags.writeable = False
    try:
        mechanism.before_fit({"server_round": 1})
        sent = mechanism.outgoing(Update(dict(trained), dict(reference), 7, {"loss": 1.0}), {"server_round": 1})
        mechanism.restore(mechanism.state())
    except PrivacyRefused as refusal:  # it may want more of a server than there is here
        verdict.notes.append(f"not tried: it refused the round ({refusal.message})")
        return verdict
    except Exception as error:  # noqa: BLE001 -- an author's code may raise anything
        why = " (it wrote into its input)" if "read-only" in str(error) else ""
        verdict.faults.append(f"it raised {type(error).__name__}: {error}{why}")
        return verdict
    if mechanism.stage < Stage.COMPRESS:
        verdict.require(list(sent.parameters) == list(trained), "it changed the names or the order of parameters")
        for name in sent.parameters.keys() & trained.keys():
            out, own = sent.parameters[name], trained[name]
            verdict.require(out.shape == own.shape, f"it changed the shape of {name}")
            verdict.require(out.dtype == own.dtype, f"it changed the type of {name}")
            verdict.require(np.isfinite(out).all(), f"it made {name} infinite")
    if mechanism.withholds_metrics:
        verdict.require("loss" not in sent.metrics, "it says that it withholds metrics and sends the loss")
    verdict.notes.append("tried: one update")
    return verdict
