"""The versions that are served, and which of them answers a request."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from locex_inference.errors import InvalidInference, NotReady, UnknownServed
from locex_inference.models.version import ModelVersion
from locex_inference.serving import IndexEntry

LATEST, STABLE = "latest", "stable"
_DRAIN_POLL = 0.02  # seconds; cheaper for requests than telling every end of theirs


@dataclass(slots=True)
class _Model:
    """What is known of one model. ``ready`` is in the order of publication, newest last."""

    ready: dict[str, ModelVersion] = field(default_factory=dict)
    stable: ModelVersion | None = None
    former: ModelVersion | None = None
    labels: dict[str, str] = field(default_factory=dict)
    weights: list[tuple[str, float]] = field(default_factory=list)
    states: dict[str, IndexEntry] = field(default_factory=dict)

    def labelled(self, name: str) -> ModelVersion | None:
        """Return the version that a label names."""
        if name == STABLE:
            return self.stable
        if name == LATEST:
            return next(reversed(self.ready.values()), None)
        return self.ready.get(self.labels.get(name, ""))


class Registry:
    """The models that are served. Belongs to the event loop: nothing here blocks, and nothing is locked.

    A request without a version is answered by the model's `STABLE` one, or in parts by canaries. `LATEST` is the one
    published last. Any version that is loaded answers requests that name it.
    """

    def __init__(self, *, draw: Callable[[], float] = random.random) -> None:
        """Keep the source of the canaries' draws: numbers in [0, 1)."""
        self._models: dict[str, _Model] = {}
        self._stable: dict[str, ModelVersion] = {}  # of the models without weights: the short way of `choose`
        self._draw = draw
        self.loads: Counter[str] = Counter()
        """How many versions were published, and how many could not be loaded."""
        self.swaps: Counter[str] = Counter()
        """How often another version became a model's stable one, by model."""

    def choose(self, model: str, version: str = "") -> ModelVersion:
        """Return the version that answers; ``version`` may be a label. Raise `UnknownServed` or `NotReady`."""
        if not version:
            found = self._stable.get(model) or self._drawn(model)
        else:
            known = self._models.get(model)
            found = (known.ready.get(version) or known.labelled(version)) if known else None
        if found is None:
            raise self._absent(model, version)
        return found

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Return the versions of a model that are loaded, newest last; raise `UnknownServed`."""
        return tuple(self._known(model).ready.values())

    def models(self) -> tuple[str, ...]:
        """Return the names of all models that are known."""
        return tuple(self._models)

    def labels(self, model: str) -> dict[str, str]:
        """Return the version behind every label of a model, `LATEST` and `STABLE` included."""
        known = self._known(model)
        names = (LATEST, STABLE, *known.labels)
        return {name: found.version for name in names if (found := known.labelled(name)) is not None}

    def weights(self, model: str) -> dict[str, float]:
        """Return the parts of the requests without a version that go to other versions than the stable one."""
        return dict(self._known(model).weights)

    def index(self) -> list[IndexEntry]:
        """Return every known version of every model with its state."""
        return [entry for known in self._models.values() for entry in map(self._current, *_states(known))]

    def note(self, model: str, version: str, state: str, reason: str = "") -> None:
        """Say how it stands with a version: it loads, or why it could not be loaded.

        One that is served meanwhile, from an earlier load, stays ready; the index tells the reason beside it.
        """
        known = self._models.setdefault(model, _Model())
        if version in known.ready and state in {"LOADING", "UNAVAILABLE"}:
            state, reason = "READY", reason and f"served as it was loaded before; then: {reason}"
        known.states[version] = IndexEntry(model, version, state, reason)

    def publish(self, version: ModelVersion, *, promote: bool | None = None) -> ModelVersion | None:
        """Serve a version from now on, in place of a loaded one of that name, which is returned to be retired.

        With ``promote``, or as its options say, it becomes the stable one; the first version always does.
        """
        known = self._models.setdefault(version.name, _Model())
        replaced = known.ready.pop(version.version, None)
        known.ready[version.version] = version
        self.loads["success"] += 1
        self.note(version.name, version.version, "READY")
        if promote is None:
            promote = version.options.promote
        if promote or known.stable is None or known.stable is replaced:
            self._set_stable(known, version, former=known.former if known.stable is replaced else known.stable)
        if known.former is replaced:
            known.former = None
        return replaced

    def promote(self, model: str, version: str = LATEST) -> ModelVersion:
        """Make a loaded version, by its name or a label, the stable one; the former stays warm for `rollback`."""
        chosen, known = self.choose(model, version), self._known(model)
        if chosen is not known.stable:
            self._set_stable(known, chosen, former=known.stable)
        return chosen

    def rollback(self, model: str) -> ModelVersion:
        """Make the version that was stable before the stable one; raise `InvalidInference` where there is none."""
        known = self._known(model)
        if known.former is None:
            raise InvalidInference(
                f"{model!r} has no former version to go back to", remedy="promote one of the loaded versions"
            )
        return self.promote(model, known.former.version)

    def set_labels(self, model: str, labels: Mapping[str, str]) -> None:
        """Give a model's versions further names, in place of those it had; raise for one that is not loaded."""
        known = self._known(model)
        for label, version in labels.items():
            if label in {LATEST, STABLE} or label in known.ready:
                raise InvalidInference(f"{label!r} cannot be a label of {model!r}: the name has a meaning already")
            self.choose(model, version)
        known.labels = dict(labels)

    def set_weights(self, model: str, weights: Mapping[str, float]) -> None:
        """Send parts of the requests without a version to these versions or labels; the rest goes to the stable one."""
        known = self._known(model)
        if any(weight < 0 for weight in weights.values()) or sum(weights.values()) > 1:
            raise InvalidInference(f"the parts of {model!r} must be at least 0, and at most 1 in all")
        for version in weights:
            self.choose(model, version)
        known.weights = [(version, weight) for version, weight in weights.items() if weight]
        self._shorten(model, known)

    def superfluous(self, model: str) -> list[ModelVersion]:
        """Return the loaded versions that are older than those to keep, and that nothing names."""
        known = self._known(model)
        named = {*known.labels.values(), *(version for version, _ in known.weights)}
        newest = list(known.ready.values())
        keep = newest[-1].options.keep if newest else 1
        held = {id(version) for version in (known.stable, known.former, *newest[-keep:]) if version is not None}
        return [version for version in newest if id(version) not in held and version.version not in named]

    async def retire(self, version: ModelVersion, reason: str = "unloaded") -> None:
        """Serve a version no longer; return when its requests are answered and its memory is free.

        Where it was the stable one, the former or else the newest one takes its place.
        """
        known = self._models.get(version.name)
        if known is not None and known.ready.get(version.version) is version:
            self._withdraw(known, version)
            self.note(version.name, version.version, "UNLOADING", reason)
        while version.in_flight:  # noqa: ASYNC110 -- an event would cost every request what only a swap needs
            await asyncio.sleep(_DRAIN_POLL)
        await asyncio.to_thread(version.close)
        entry = known.states.get(version.version) if known else None
        if entry is not None and entry.state == "UNLOADING":
            self.note(version.name, version.version, "UNAVAILABLE", reason)

    async def unload(self, model: str) -> None:
        """Retire every version of a model; raise `UnknownServed`."""
        await asyncio.gather(*(self.retire(version) for version in self.versions(model)))

    def _withdraw(self, known: _Model, version: ModelVersion) -> None:
        del known.ready[version.version]
        known.labels = {label: named for label, named in known.labels.items() if named != version.version}
        known.weights = [(named, weight) for named, weight in known.weights if named != version.version]
        if known.former is version:
            known.former = None
        if known.stable is version:
            self._set_stable(known, known.former or known.labelled(LATEST), former=None)
        self._shorten(version.name, known)

    def _set_stable(self, known: _Model, version: ModelVersion | None, former: ModelVersion | None) -> None:
        if known.stable is not None and version is not None:
            self.swaps[version.name] += 1
        known.stable, known.former = version, former
        if version is not None:
            self._shorten(version.name, known)

    def _shorten(self, model: str, known: _Model) -> None:
        """Keep the short way in step: it knows models of which one version answers all."""
        if known.stable is not None and not known.weights:
            self._stable[model] = known.stable
        else:
            self._stable.pop(model, None)

    def _drawn(self, model: str) -> ModelVersion | None:
        known = self._models.get(model)
        if known is None:
            return None
        left = self._draw()
        for name, weight in known.weights:
            left -= weight
            if left < 0:
                return known.ready.get(name) or known.labelled(name) or known.stable
        return known.stable

    def _known(self, model: str) -> _Model:
        known = self._models.get(model)
        if known is None:
            raise UnknownServed(f"there is no model {model!r} here", remedy="load it, or ask the index for those known")
        return known

    def _current(self, entry: IndexEntry, version: ModelVersion | None) -> IndexEntry:
        if version is not None and version.fault and entry.state == "READY":
            return IndexEntry(entry.name, entry.version, "UNAVAILABLE", version.fault)
        return entry

    def _absent(self, model: str, version: str) -> UnknownServed | NotReady:
        """Return the error for a version that does not answer."""
        states = self._known(model).states
        asked = [states[version]] if version in states else list(states.values()) if not version else []
        what = f"{model!r}" + (f" version {version!r}" if version else "")
        if not asked:
            loaded = ", ".join(self._known(model).ready) or "none"
            return UnknownServed(f"there is no {what} here; loaded are: {loaded}", remedy="name a loaded version")
        reasons = "; ".join(f"{entry.state}{f', {entry.reason}' if entry.reason else ''}" for entry in asked)
        return NotReady(f"{what} is not ready: {reasons}", remedy="wait for it, or load it")


def _states(known: _Model) -> tuple[list[IndexEntry], list[ModelVersion | None]]:
    entries = list(known.states.values())
    return entries, [known.ready.get(entry.version) for entry in entries]
