"""A builder: a tiny round changes the weights and nothing else about them; state and export go round."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from locex.api import ModelArtefact, Parameters, TrainingSession
from locex.schemas.job import TrainConfig
from locex.testing.contract.verdict import Verdict

_CONFIG = TrainConfig(batch_size=4, epochs=1)


def try_builder(make: Callable[[ModelArtefact], TrainingSession], artefact: ModelArtefact) -> Verdict:
    """Build a session of an artefact, train a tiny round, save, load and export it."""
    verdict = Verdict()
    try:
        _try(verdict, make, artefact)
    except Exception as error:  # noqa: BLE001 -- an author's code may raise anything
        verdict.faults.append(f"it raised {type(error).__name__}: {error}")
    return verdict


def _try(verdict: Verdict, make: Callable[[ModelArtefact], TrainingSession], artefact: ModelArtefact) -> None:
    session = make(artefact)
    start = session.get_parameters()
    kept = {name: array.copy() for name, array in start.items()}
    for array in start.values():
        array[...] = 0
    verdict.require(_equal(session.get_parameters(), kept), "get_parameters gave the model's own arrays, not copies")
    session.set_parameters(kept)
    verdict.require(_equal(session.get_parameters(), kept), "parameters that are set come back different")

    result = session.fit(_CONFIG, server_round=1)
    trained = session.get_parameters()
    verdict.require(not _equal(trained, kept), "a round of training changed no weight")
    verdict.require(list(trained) == list(kept), "training changed the names or the order of parameters")
    for name in trained.keys() & kept.keys():
        verdict.require(trained[name].shape == kept[name].shape, f"training changed the shape of {name}")
        verdict.require(trained[name].dtype == kept[name].dtype, f"training changed the type of {name}")
        verdict.require(np.isfinite(trained[name]).all(), f"training made {name} infinite")
    verdict.require(result.examples > 0, "fit counts no examples")
    verdict.require(math.isfinite(result.metrics.get("loss", math.nan)), "fit tells no finite loss")
    evaluation = session.evaluate(_CONFIG)
    verdict.require(math.isfinite(evaluation.loss) and evaluation.examples > 0, "evaluate tells no finite loss")
    verdict.require(_equal(session.get_parameters(), trained), "evaluate changed the weights")

    with tempfile.TemporaryDirectory() as place:
        state, exported = Path(place, "state"), Path(place, "export")
        state.mkdir()
        exported.mkdir()
        session.save_state(state)
        make(artefact).load_state(state)
        first = session.export(exported, [])[0]
        again = make(ModelArtefact(first, artefact.metadata, "")).get_parameters()
        verdict.require(_equal(again, trained), "what it exports is loaded with other weights")
    verdict.notes.append(f"tried: a round of {result.examples} examples, its state and its export")


def _equal(one: Parameters, other: Parameters) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
