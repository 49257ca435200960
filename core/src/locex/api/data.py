"""Local data and the steps of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from locex.api.values import Array

if TYPE_CHECKING:
    import numpy as np

    from locex.schemas.data_format import DataFormat


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples: ``x`` has shape (n, …), ``y`` has shape (n,) or (n, …)."""

    x: Array
    y: Array

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.x)


Augment: TypeAlias = "Callable[[Dataset, np.random.Generator], Dataset]"
"""The random end of a training pipeline, on one batch."""


@dataclass(frozen=True, slots=True)
class LocalData:
    """The node's data after its source or after a pipeline, with the format that the model sees.

    Arrays may be memory-mapped and larger than memory: index them, do not copy them whole. Where ``augment`` is
    given, ``train`` is as it is before it: sessions call it on every training batch, with a generator of their own
    seed and round.
    """

    train: Dataset
    test: Dataset
    format: DataFormat
    augment: Augment | None = None


class DataSource(Protocol):
    """Local data. Created by ``locex_create_data``."""

    def format(self) -> DataFormat:
        """Return the format of the data without loading all of it; raise `DataUnavailable` where it is missing."""

    def load(self) -> LocalData:
        """Return training and test data with their format."""


@runtime_checkable
class TracedSource(DataSource, Protocol):
    """A source that tells the state of what it reads; prepared data is kept for later jobs under that state.

    Without the method the names, sizes and times of everything in the data folder count.
    """

    def state(self) -> str:
        """Return a text that changes when the data does, without reading all of it: a version, sizes and times."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a step needs of the machine: GiB of memory and storage, a GPU, importable libraries, models of the node.

    ``models`` are written ``name`` or ``name/version``.
    """

    memory: float = 0
    storage: float = 0
    gpu: bool = False
    libraries: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


class Transform(Protocol):
    """One step of a pipeline, on data and on their format. Created by ``locex_create_transform``."""

    needs: Needs

    def transform_data(self, data: Dataset) -> Dataset:
        """Return transformed data; the arrays that came in are read-only.

        Called with some thousand examples at a time: each is transformed on its own account.
        """

    def transform_format(self, data_format: DataFormat) -> DataFormat:
        """Return the format after this step; raise `ValueError` where the step cannot take the format."""


@runtime_checkable
class FittedTransform(Transform, Protocol):
    """A step that learns from the training split before it transforms: a scaler's mean, say."""

    def fit(self, train: Dataset) -> None:
        """Learn from training data, which may be memory-mapped and larger than memory; called once."""


@runtime_checkable
class SavedTransform(FittedTransform, Protocol):
    """A step whose knowledge can be kept with the model, so that serving transforms as the training did.

    Steps that learn, and do not implement it, are fitted anew in every training and cannot be served.
    """

    def state(self) -> dict[str, Array]:
        """Return what was learnt as arrays of numbers by name; called after `fit`."""

    def restore(self, state: Mapping[str, Array]) -> None:
        """Take up what `state` returned, instead of `fit`; raise `ValueError` where it is not of this step."""


@runtime_checkable
class SharingTransform(Transform, Protocol):
    """A step that shares values with others while a model is served: the size of an image before it was resized, say.

    ``values`` belong to one request. Steps before and after the model are given the same dictionary. In trainings
    `transform_data` is called instead.
    """

    def transform_request(self, data: Dataset, values: dict[str, Any]) -> Dataset:
        """Return the data of one request transformed; read and write ``values`` under names of the step's own."""


@runtime_checkable
class RandomTransform(Transform, Protocol):
    """A step that draws: it acts on training batches only, anew in every round, and leaves test data as they are."""

    def transform_batch(self, batch: Dataset, generator: np.random.Generator) -> Dataset:
        """Return the batch transformed with draws from ``generator``."""


@dataclass(frozen=True, slots=True)
class SiteContext:
    """What a data source may know of the site.

    ``cache_folder``, where the site has one, may keep what is made of large files, for later jobs too, and no more
    than ``cache_bytes``; a source removes there nothing but its own. All sources share it.
    """

    data_folder: Path
    seed: int
    cache_folder: Path | None = None
    cache_bytes: int | None = None
