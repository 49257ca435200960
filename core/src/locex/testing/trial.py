"""A process that uses one plugin as its contract says: ``python -m locex.testing.trial``.

It reads a `Trial` and answers with a `Verdict`. Whatever the plugin does to its process ends only this one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from locex.api import (
    BuildContext,
    InferencerContext,
    LocalData,
    ModelArtefact,
    PrivacyContext,
    SiteContext,
    TrainingSession,
)
from locex.errors import CrashedPlugin, LocexError
from locex.plugins.catalog import Entry, read_catalog
from locex.plugins.host import Configured, Host
from locex.processes.answers import answer_of, short_lived
from locex.processes.channel import Channel
from locex.processes.child import python
from locex.processes.memory import hard_limit
from locex.schemas.job import TrainConfig
from locex.schemas.model import ModelMetadata
from locex.settings import WITHHELD
from locex.testing.contract.verdict import Verdict


class Trial(BaseModel):
    """What is tried, and with what."""

    entry: dict[str, Any] = Field(description="The plugin, as the catalogue knows it.")
    folders: list[str] = Field(default_factory=list, description="Folders of plugins beside the environment.")
    fields: dict[str, Any] = Field(default_factory=dict, description="The plugin's own fields.")
    examples: Path | None = Field(default=None, description="An .npz file with x and y.")
    model: Path | None = Field(default=None, description="The artefact of a builder or an inferencer.")
    optimizer: dict[str, Any] = Field(default_factory=dict, description="A builder's optimizer: its name and fields.")
    memory_mb: int | None = Field(default=None, description="Memory that it may take.")
    data_folder: Path | None = Field(default=None, description="Where a data source reads.")


async def verdict_on(trial: Trial, *, interpreter: str | None = None, patience: float = 60) -> Verdict:
    """Try a plugin in a process of its own; a crash or a hang is a fault."""
    entry = Entry(**trial.entry)
    argv = python("locex.testing.trial", interpreter=interpreter)
    async with short_lived(argv, environment=WITHHELD) as child:
        await child.send(trial.model_dump(mode="json"))
        try:
            answer = await answer_of(child, f"{entry.kind} {entry.name!r} of {entry.origin}", patience)
        except CrashedPlugin as error:
            return Verdict([error.message])
    return Verdict(**answer)


def hold(trial: Trial) -> Verdict:
    """Try a plugin in this process."""
    entry, host = Entry(**trial.entry), Host()
    try:
        plugin = host.configure(host.load(entry), trial.fields)
    except LocexError as error:
        missing = all("required" in fault["message"].lower() for fault in error.errors) and error.errors
        if missing and not trial.fields:
            return Verdict(notes=[f"not tried: give its fields ({error.message})"])
        return Verdict([error.message])
    return _TRIALS[entry.kind](host, plugin, trial)


def _transform(host: Host, plugin: Configured, trial: Trial) -> Verdict:
    from locex.testing.contract.examples import FORMATS, format_of, read_examples
    from locex.testing.contract.transform import try_transform

    if trial.examples is None:
        return try_transform(lambda: host.transform(plugin), FORMATS)
    data = read_examples(trial.examples)
    return try_transform(lambda: host.transform(plugin), [format_of(data)], data)


def _source(host: Host, plugin: Configured, trial: Trial) -> Verdict:
    from locex.testing.contract.data import try_source

    if trial.data_folder is None:
        return Verdict(notes=["not tried: give the folder of its data"])
    return try_source(host.data(plugin, SiteContext(trial.data_folder, 0)))


def _builder(host: Host, plugin: Configured, trial: Trial) -> Verdict:
    from locex.testing.contract.builder import try_builder
    from locex.testing.contract.examples import format_of, read_examples

    if trial.model is None or trial.examples is None:
        return Verdict(notes=["not tried: give a model file and examples"])
    library, data = plugin.loaded.entry.name, read_examples(trial.examples)
    catalog, chosen = read_catalog(folders=[Path(folder) for folder in trial.folders]), dict(trial.optimizer)
    found = catalog.find("optimizer", chosen.pop("optimizer", "sgd"), library=library)
    optimizer = host.configure(host.load(found), chosen)

    def architecture(name: str, fields: Mapping[str, Any], seed: int | None) -> Any:
        loaded = host.load(catalog.find("architecture", name, library=library))
        return host.architecture(host.configure(loaded, fields), seed or 0)

    def session(artefact: ModelArtefact) -> TrainingSession:
        context = BuildContext(
            artefact=artefact,
            data=LocalData(data, data, format_of(data)),
            num_classes=None,
            config=TrainConfig(),
            optimizer=lambda target: host.optimizer(optimizer, target),
            scheduler=None,
            warmup=None,
            warmup_scheduler=None,
            architecture=architecture,
            threads=1,
            seed=0,
        )
        return host.builder(plugin, context)

    metadata = ModelMetadata.model_validate({"model_name": "m", "model_version": "1", "meta": {"library": library}})
    return try_builder(session, ModelArtefact(trial.model, metadata, ""))


def _inferencer(host: Host, plugin: Configured, trial: Trial) -> Verdict:
    from locex.testing.contract.inferencer import try_inferencer

    if trial.model is None:
        return Verdict(notes=["not tried: give a model file"])
    metadata = ModelMetadata.model_validate({"model_name": "m", "model_version": "1", "meta": {"library": "any"}})
    try:
        inferencer = host.inferencer(plugin, InferencerContext(ModelArtefact(trial.model, metadata, ""), threads=1))
    except LocexError as error:
        return Verdict([error.message])
    return try_inferencer(inferencer)


def _mechanism(host: Host, plugin: Configured, _trial: Trial) -> Verdict:
    from locex.testing.contract.privacy import memory_ledgers, try_mechanism

    context = PrivacyContext("data", memory_ledgers(), lambda _unit, _epsilon: None)
    return try_mechanism(host.privacy(plugin, context))


_TRIALS: dict[str, Callable[[Host, Configured, Trial], Verdict]] = {
    "transform": _transform,
    "data": _source,
    "builder": _builder,
    "inferencer": _inferencer,
    "privacy": _mechanism,
}
TRIED = tuple(_TRIALS)
"""Kinds that can be tried without a federation; a store has `locex.testing.store_contract`."""


def main() -> None:
    """Answer one trial and end."""
    channel = Channel.take()
    request = channel.receive()
    if request is None:
        return
    channel.end_with_parent()
    trial = Trial.model_validate(request)
    sys.path.extend(trial.folders)
    with hard_limit(trial.memory_mb):
        channel.send(asdict(hold(trial)))


if __name__ == "__main__":
    main()
