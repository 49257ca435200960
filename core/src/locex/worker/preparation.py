"""From the data source to data ready for training: taken from the cache of former jobs, or made and kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from locex.api import Dataset, DataSource, LocalData, TracedSource
from locex.errors import BrokenPlugin, DataUnavailable, StoreUnavailable
from locex.pipelines.saved import knowledge_of, recall
from locex.pipelines.steps import Step
from locex.plugins.host import Configured
from locex.settings import SiteSettings
from locex.worker.pipeline import Passes, Pipeline
from locex.worker.plan import Plan
from locex.worker.prepared import Kept, PreparedCache, key_of, new_file, state_of

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What preparing data may use and tell: the run's folder, the node's models, a way to be stopped and to warn."""

    folder: Path
    models: Mapping[str, Sequence[str]]
    should_stop: Callable[[], bool] = lambda: False
    warn: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Preparation:
    """One job's data in the making."""

    plan: Plan
    site: SiteSettings
    source: DataSource
    train: Pipeline
    test: Pipeline
    surroundings: Surroundings

    def data(self) -> tuple[Dataset, Dataset]:
        """Return training data as they are before the random end, and test data; from the cache where they are."""
        cache = self._cache()
        if cache is None:
            return self._transformed(self._loaded(), self._unkept)
        key = self._key()
        found = cache.get(key)
        if found is not None:
            recall(self._learners, found.knowledge)
            self._unkept.learn(found.train, self.train.between(self.train.fixed), self._generator)
            return found.train, found.test
        loaded, made = self._loaded(), None
        try:
            with cache.building() as place:
                made = self._transformed(loaded, Passes(lambda: new_file(place), self.surroundings.should_stop))
                if self._key() == key:  # else the data changed meanwhile
                    kept = cache.keep(key, place, Kept(*made, knowledge_of(self._learners)))
                    made = kept.train, kept.test
        except (OSError, StoreUnavailable) as error:
            self.surroundings.warn(
                f"prepared data is not kept for later jobs ({self.site.preprocessed_folder}): {error}"
            )
        return made or self._transformed(loaded, self._unkept)

    def _cache(self) -> PreparedCache | None:
        folder = self.site.preprocessed_folder
        if folder is None or not (self.train.fixed or self.test.steps):
            return None
        return PreparedCache(folder / "pipelines", self.site.preprocessed_mb * _MIB)

    @property
    def _learners(self) -> list[Step]:
        """The steps whose knowledge goes with prepared data: those before the random end, and those of test data."""
        return [*self.train.steps[: self.train.fixed], *self.test.steps]

    @property
    def _unkept(self) -> Passes:
        """Passes whose files have no name, and are gone with the process."""
        folder, should_stop = self.surroundings.folder, self.surroundings.should_stop
        return Passes(lambda: tempfile.TemporaryFile(dir=folder), should_stop)

    @property
    def _generator(self) -> np.random.Generator:
        return np.random.default_rng(self.plan.job.seed or 0)

    def _transformed(self, loaded: LocalData, passes: Passes) -> tuple[Dataset, Dataset]:
        fixed, end = self.train.between(0, self.train.fixed), self.train.between(self.train.fixed)
        learned, done = passes.learn(loaded.train, fixed)
        train = passes.through(learned, fixed.between(done))
        passes.learn(train, end, self._generator)
        passes.learn(loaded.train, self.test)
        return train, passes.through(loaded.test, self.test)

    def _loaded(self) -> LocalData:
        entry = self.plan.plugins["data"].loaded.entry
        loaded: Any = self.source.load()
        if not isinstance(loaded, LocalData):
            raise BrokenPlugin(entry.kind, entry.name, entry.origin, f"load() gave {type(loaded).__name__}")
        for part in (loaded.train, loaded.test):
            if len(part.x) != len(part.y):
                raise DataUnavailable(
                    f"the data source {entry.name} gave {len(part.x)} inputs with {len(part.y)} targets",
                    remedy="check the files of DATA_FOLDER",
                )
        if not len(loaded.train):
            raise DataUnavailable("the data source has no training examples", remedy="check DATA_FOLDER and the source")
        return loaded

    def _key(self) -> str:
        """Return what prepared data depends on: the data, the seed, and every step that had a part in it."""
        plugins = self.plan.in_order("train")
        end = self.train.steps[self.train.fixed :]
        taught = any(step.twin is not None and step.twin in end for step in self.test.steps)
        folder = self.site.data_folder
        return key_of(
            {
                "source": _identity(self.plan.plugins["data"]),
                "folder": str(folder),
                "state": self.source.state() if isinstance(self.source, TracedSource) else state_of(folder),
                "seed": self.plan.job.seed or 0,
                "train": [_identity(plugin) for plugin in (plugins if taught else plugins[: self.train.fixed])],
                "test": [_identity(plugin) for plugin in self.plan.in_order("test")],
            }
        )


def _identity(plugin: Configured) -> list[object]:
    entry = plugin.loaded.entry
    return [entry.name, entry.fingerprint, plugin.config.model_dump(mode="json")]
