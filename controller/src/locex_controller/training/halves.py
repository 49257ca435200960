"""The collector's halves of a training's mechanisms: what decodes, and the one aggregation."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from locex.api import Aggregation, Contribution, ContributionDecoder, OpaqueAggregation, PlainMean
from locex.errors import InvalidConfiguration, UnknownPlugin
from locex.plugins.catalog import Catalog, read_catalog
from locex.plugins.host import Host, Loaded
from locex.schemas.plugin import PluginConfig
from locex.settings import PluginSettings
from locex_controller.training.checks import fault_of
from locex_controller.training.spec import AggregationSpec, MechanismSpec
from locex_controller.training.wire import Replies

if TYPE_CHECKING:
    from locex.api import Array


@dataclass(frozen=True, slots=True)
class Halves:
    """What acts on contributions: ``decoders`` in this order, then the aggregation."""

    aggregation: Aggregation
    decoders: tuple[ContributionDecoder, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def opaque(self) -> bool:
        """Whether contributions and global parameters are not in the model's shapes."""
        return isinstance(self.aggregation, OpaqueAggregation)

    def accepted(self, replies: Replies[Contribution], current: list[Array]) -> Replies[Contribution]:
        """Return the replies decoded, with every contribution that cannot be used moved to the failures."""
        checked: Replies[Contribution] = Replies(failures=dict(replies.failures))
        for node, contribution in replies.results.items():
            try:
                checked.results[node] = self._accepted(contribution, current)
            except ValueError as fault:
                checked.failures[node] = f"contribution refused: {fault}"
        return checked

    def _accepted(self, contribution: Contribution, current: list[Array]) -> Contribution:
        for decoder in self.decoders:
            contribution = decoder.decode(contribution, current)
        if isinstance(self.aggregation, OpaqueAggregation):
            fault = self.aggregation.fault_of(contribution, current)
        else:
            fault = fault_of(contribution, current)
        if fault:
            raise ValueError(fault)
        return contribution


def load_halves(chosen: AggregationSpec, mechanisms: Sequence[MechanismSpec]) -> Halves:
    """Load what the site has of a training's choices.

    Raise `UnknownPlugin` for a mechanism that is not installed at all, `InvalidConfiguration` where two choices
    exclude each other.
    """
    settings = PluginSettings()
    sys.path.extend(str(folder) for folder in settings.plugin_folders)
    loader = _Loader(read_catalog(settings.policy, settings.plugin_folders), chosen)
    halves = {mechanism.name: loader.half(mechanism) for mechanism in loader.having_halves(mechanisms)}
    decoders = {name: half for name, half in halves.items() if isinstance(half, ContributionDecoder)}
    averages = {name: half for name, half in halves.items() if not isinstance(half, ContributionDecoder)}
    name = _averaging(averages)
    warnings = _displaced(chosen, name)
    if name:
        loader.refuse_unused(name)
    aggregation = averages[name] if name else loader.strategy()
    if decoders and isinstance(aggregation, OpaqueAggregation):
        raise _excluding(next(iter(decoders)), name or chosen.name, "what is encrypted cannot be decoded here")
    ordered = sorted(decoders.values(), key=lambda decoder: decoder.stage, reverse=True)
    return Halves(aggregation, tuple(ordered), warnings)


class _Loader:
    """Loads and configures plugins of one training."""

    def __init__(self, catalog: Catalog, chosen: AggregationSpec) -> None:
        self._catalog = catalog
        self._chosen = chosen
        self._host = Host()
        self._models: dict[str, type[PluginConfig]] = {}

    def having_halves(self, mechanisms: Sequence[MechanismSpec]) -> list[MechanismSpec]:
        """Return the mechanisms with a half for the collector; raise `UnknownPlugin` for one with none at all."""
        here, nodes = set(self._catalog.names("aggregation")), set(self._catalog.names("privacy"))
        for mechanism in mechanisms:
            if mechanism.name not in here | nodes:
                raise UnknownPlugin("privacy mechanism", mechanism.name, here | nodes, path=mechanism.pointer)
        return [mechanism for mechanism in mechanisms if mechanism.name in here]

    def half(self, mechanism: MechanismSpec) -> Aggregation | ContributionDecoder:
        """Return a mechanism's half; it gets those of the fields that it has."""
        loaded = self._loaded(mechanism.name, mechanism.pointer)
        names = _names_of(loaded.config_model)
        shared = {name: value for name, value in mechanism.config.items() if name in names}
        own = {name: value for name, value in self._chosen.config.items() if name in names}
        return self._made(loaded, {**shared, **own}, at=self._chosen.config_pointer if own else mechanism.pointer)

    def strategy(self) -> Aggregation:
        """Return the aggregation that no mechanism takes the place of."""
        chosen = self._chosen
        made = self._made(self._loaded(chosen.name, chosen.pointer), chosen.config, at=chosen.config_pointer)
        if isinstance(made, ContributionDecoder):
            raise InvalidConfiguration(
                f"{chosen.name!r} only decodes contributions, it does not average them",
                remedy="name it in privacy-mechanisms",
                errors=[{"path": chosen.pointer, "message": "is no aggregation"}],
            )
        return made

    def refuse_unused(self, name: str) -> None:
        """Raise `InvalidConfiguration` for fields of an aggregation that this mechanism's half does not have."""
        allowed = ", ".join(sorted(self._models[name].model_fields)) or "none"
        message = f"unknown key; allowed here are: {allowed}"
        paths = [
            f"{self._chosen.config_pointer}/{field}"
            for field in self._chosen.config
            if field not in _names_of(self._models[name])
        ]
        if paths:
            raise InvalidConfiguration(
                f"the aggregation {name!r} does not have these fields: {', '.join(paths)}",
                remedy="correct the named fields",
                errors=[{"path": path, "message": message} for path in paths],
            )

    def _loaded(self, name: str, pointer: str) -> Loaded:
        loaded = self._host.load(self._catalog.find("aggregation", name, path=pointer))
        self._models[name] = loaded.config_model
        return loaded

    def _made(self, loaded: Loaded, fields: Mapping[str, Any], *, at: str) -> Aggregation | ContributionDecoder:
        return self._host.aggregation(self._host.configure(loaded, fields, at=at))


def _names_of(model: type[PluginConfig]) -> set[str]:
    """Return the names by which fields may be given."""
    aliases = (field.validation_alias for field in model.model_fields.values() if field.validation_alias is not None)
    return {*model.model_fields, *(str(name) for alias in aliases for name in getattr(alias, "choices", [alias]))}


def _averaging(halves: Mapping[str, Aggregation]) -> str | None:
    """Return the mechanism whose half averages; raise `InvalidConfiguration` where two would.

    One that is no more than the average by examples gives way to one that averages what it cannot read.
    """
    opaque = [name for name, half in halves.items() if isinstance(half, OpaqueAggregation)]
    left = [name for name, half in halves.items() if name in opaque or not (opaque and _is_plain(half))]
    if len(left) > 1:
        raise _excluding(left[0], left[1], "both average the nodes' contributions")
    return next(iter(left), None)


def _is_plain(half: Aggregation) -> bool:
    return isinstance(half, PlainMean) and half.plain_mean


def _displaced(chosen: AggregationSpec, name: str | None) -> tuple[str, ...]:
    """Return a warning where a mechanism's average takes the place of the usual strategy.

    Raise `InvalidConfiguration` where it would take the place of another one.
    """
    if name is None or not chosen.stated or chosen.name == name:
        return ()
    if chosen.pointer == "/strategy" and chosen.name == "fedavg":  # older clients always send it
        return ("'strategy' was ignored: the aggregation of the privacy mechanism takes its place",)
    message = f"/privacy-mechanisms chooses {name!r} already"
    raise InvalidConfiguration(
        f"the configuration contradicts itself: {chosen.pointer}: {message}",
        remedy="leave out one of each",
        errors=[{"path": chosen.pointer, "message": message}],
    )


def _excluding(first: str, second: str, reason: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"{first!r} and {second!r} exclude each other at the collector: {reason}",
        remedy="leave out one of them",
        errors=[{"path": f"/privacy-mechanisms/{name}", "message": reason} for name in (first, second)],
    )
