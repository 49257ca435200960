"""Sessions of a benchmark: made of installed plugins as a worker makes them, without a service."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import psutil

from locex.api import BuildContext, Dataset, LocalData, ModelArtefact, TrainingSession
from locex.schemas.data_format import DataFormat
from locex.schemas.job import TrainConfig
from locex.schemas.model import ModelMetadata

Data = tuple[Dataset, Dataset]


def plugin(kind: str, name: str) -> Any:
    (entry,) = entry_points(group=f"locex.{kind}", name=name)
    return entry.load()()


def architecture(library: str, name: str, fields: Any, seed: int | None = None) -> Any:
    chosen = plugin("architecture", f"{library}.{name}")
    return chosen.locex_create_architecture(chosen.locex_config_model()(**fields), seed or 0)


def make_session(
    library: str,
    path: Path,
    data: Data,
    config: TrainConfig,
    optimizer: Callable[[Any], Any],
    *,
    threads: int,
    seed: int,
    **options: Any,
) -> TrainingSession:
    """Return a session of the artefact in ``path`` that tells the accuracy; ``options`` are the builder's."""
    metadata = ModelMetadata.model_validate({"model_name": "m", "model_version": "1", "meta": {"library": library}})
    data_format = DataFormat.of({"any": {"size": list(data[0].x.shape[1:])}}, {"categorical": {"size": []}})
    context = BuildContext(
        artefact=ModelArtefact(path, metadata, ""),
        data=LocalData(*data, data_format),
        num_classes=None,
        config=config,
        optimizer=optimizer,
        scheduler=None,
        warmup=None,
        warmup_scheduler=None,
        architecture=partial(architecture, library),
        threads=threads,
        seed=seed,
    )
    builder = plugin("builder", library)
    made: TrainingSession = builder.locex_create_builder(
        builder.locex_config_model()(eval_metrics=["accuracy"], **options), context
    )
    return made


def memory(make: Callable[[], TrainingSession], config: TrainConfig, before: str) -> dict[str, float]:
    """Return resident MiB of this process with what ``before`` names, with a session, and after two rounds."""
    process, mebi = psutil.Process(), 2**20
    at_first = process.memory_info().rss / mebi
    session = make()
    made = process.memory_info().rss / mebi
    for server_round in (1, 2):
        session.fit(config, server_round=server_round)
        session.evaluate(config)
    size = sum(array.nbytes for array in session.get_parameters().values()) / mebi
    after = process.memory_info().rss / mebi
    return {before: at_first, "session": made, "two rounds": after, "parameters": size}


def in_a_process_of_its_own(script: str, *fields: object) -> dict[str, float]:
    """Return what a script prints as JSON."""
    command = [sys.executable, script, *(str(field) for field in fields)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found
