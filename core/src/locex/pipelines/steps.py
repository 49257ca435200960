"""The steps of a pipeline: each is held to its contract, and to its own format rule, on all the data that it gives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from locex.api import Array, Augment, Dataset, FittedTransform, Needs, RandomTransform, SharingTransform, Transform
from locex.errors import BrokenPlugin, FormatMismatch, LocexError, StepFailed
from locex.plugins.host import Configured, Host
from locex.schemas.data_format import DataFormat, SideFormat

_MEMBERS = ("needs", "transform_format", "transform_data")
_TEXT = "US"  # NumPy's kinds of text, whose types have a length


@dataclass(slots=True, eq=False)
class Step:
    """One transformation with the id by which users know it."""

    name: str
    transform: Transform
    label: str
    """Name and place: ``step 2 (categorical)``."""
    twin: Step | None = None
    """The step whose transform this one shares."""
    fitted: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The valid fields that it was made with."""

    @property
    def random(self) -> bool:
        """Whether it draws."""
        return isinstance(self.transform, RandomTransform)

    @property
    def learns(self) -> bool:
        """Whether it must see training data before it transforms any."""
        known = self.fitted or (self.twin is not None and self.twin.fitted)
        return isinstance(self.transform, FittedTransform) and not known


def made_by(host: Host, plugin: Configured, number: int, where: str = "") -> Step:
    """Return the step that a plugin makes; ``number`` and ``where`` are its place in a pipeline, for people."""
    entry = plugin.loaded.entry
    label = f"step {number} ({entry.name}){where}"
    with contained(label, "was made"):
        transform = host.transform(plugin)
    lacking = [name for name in _MEMBERS if not hasattr(transform, name)]
    if lacking:
        raise BrokenPlugin(entry.kind, entry.name, entry.origin, f"its step has no {', '.join(lacking)}")
    return Step(entry.name, transform, label, fields=plugin.config.model_dump(mode="json", exclude_none=True))


class Skipped:
    """What a step that draws is for test data: nothing."""

    needs = Needs()

    def transform_data(self, data: Dataset) -> Dataset:
        """Return the data as they are."""
        return data

    def transform_format(self, data_format: DataFormat) -> DataFormat:
        """Return the format as it is."""
        return data_format


@contextlib.contextmanager
def contained(label: str, doing: str) -> Iterator[None]:
    """Turn whatever the code of a step raises into `StepFailed`; errors of locex and `MemoryError` pass."""
    try:
        yield
    except (LocexError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        reason = str(error) or "no reason given"
        if "read-only" in reason:
            reason += " (a step must not change the arrays that it is given)"
        raise StepFailed(label, f"raised {type(error).__name__} while it {doing}: {reason}") from error


def fit(step: Step, train: Dataset) -> None:
    """Let a step learn; once."""
    assert isinstance(step.transform, FittedTransform)
    with contained(step.label, "learned"):
        step.transform.fit(_protected(train))
    step.fitted = True


def transformed(
    step: Step,
    data: Dataset,
    form: DataFormat,
    generator: np.random.Generator | None = None,
    values: dict[str, Any] | None = None,
) -> Dataset:
    """Return what a step makes of examples, or raise what is wrong with it.

    ``form`` is the format that its own rule promises. A step that draws does so from ``generator``; ``values`` are
    those that the steps of one request share.
    """
    given = _protected(data)
    with contained(step.label, "transformed"):
        if generator is not None and isinstance(step.transform, RandomTransform):
            made = step.transform.transform_batch(given, generator)
        elif values is not None and isinstance(step.transform, SharingTransform):
            made = step.transform.transform_request(given, values)
        else:
            made = step.transform.transform_data(given)
    _check(step, made, len(data), form)
    return made


def augmentation(steps: Sequence[Step], forms: Sequence[DataFormat]) -> Augment | None:
    """Return the random end of a pipeline as one function; ``forms`` are the formats after each of its steps."""
    if not steps:
        return None

    def augment(batch: Dataset, generator: np.random.Generator) -> Dataset:
        for step, form in zip(steps, forms, strict=True):
            batch = transformed(step, batch, form, generator)
        return batch

    return augment


def _protected(data: Dataset) -> Dataset:
    """Return read-only views: a step that writes into its input raises instead of spoiling it."""
    return Dataset(_read_only(data.x), _read_only(data.y))


def _read_only(array: Array) -> Array:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def _check(step: Step, made: Dataset, examples: int, form: DataFormat) -> None:
    if not isinstance(made, Dataset):
        raise StepFailed(step.label, f"gave {type(made).__name__}, not a Dataset")
    for side, array in (("x", made.x), ("y", made.y)):
        if not isinstance(array, np.ndarray) or array.ndim == 0:
            raise StepFailed(step.label, f"gave {type(array).__name__} as {side}, not an array of examples")
    if len(made.x) != examples or len(made.y) != examples:
        raise StepFailed(step.label, f"gave {len(made.x)} inputs and {len(made.y)} targets for {examples} examples")
    for side, array in (("x", made.x), ("y", made.y)):
        difference = disagreement(array, getattr(form, side))
        if difference:
            raise FormatMismatch(
                f"{step.label} gave {side} with {difference}, which is not its own format rule",
                remedy="mend the step, or leave it out",
            )


def disagreement(array: Array, form: SideFormat) -> str | None:
    """Return how an array differs from its format, or None; a size of -1 in the format is any."""
    if len(form.data_types) != 1:
        return None  # several kinds share one array in ways that only their steps know
    (tensor,) = form.data_types.values()
    if not _same_size(array.shape[1:], tensor.size):
        return f"size {list(array.shape[1:])} instead of {tensor.size}"
    if tensor.dtype and not _same_type(array.dtype, np.dtype(tensor.dtype)):
        return f"type {array.dtype} instead of {tensor.dtype}"
    return None


def _same_size(have: Sequence[int], want: Sequence[int]) -> bool:
    return len(have) == len(want) and all(one in (-1, size) for size, one in zip(have, want, strict=True))


def _same_type(have: np.dtype[np.generic], want: np.dtype[np.generic]) -> bool:
    """Compare types; a text of any length is meant where the rule names none."""
    return have == want or (want.kind in _TEXT and not want.itemsize and have.kind == want.kind)
