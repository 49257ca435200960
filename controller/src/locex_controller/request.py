"""What ``POST /job/config/{training_id}/`` takes: the older Training Collector's body and what is new."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, ConfigDict, Field, field_validator, model_validator

from locex.errors import InvalidConfiguration
from locex.schemas.base import Configuration, validate
from locex.schemas.model import Name
from locex_controller.training.spec import AggregationSpec, FederationName, MechanismSpec, Plan

_PLANNED = {"fraction_fit", "fraction_evaluate", "min_fit_clients", "min_evaluate_clients", "min_available_clients"}
_PLANNED |= {"accept_failures", "min_completion_rate_fit"}
_NOT_USED = {
    "client_conf": "nodes get their configuration from their own jobs",
    "adapt_config": "it never had a meaning",
    "stopping_flag": "a training runs all its rounds",
    "stopping_target": "a training runs all its rounds",
}


class ServerConf(Configuration):
    """Rounds and their time-outs."""

    num_rounds: int | None = Field(default=None, gt=0, description="Rounds in all.")
    round_timeout: float | None = Field(default=None, gt=0, description="Seconds a node has per fit or evaluation.")
    wait_timeout: float | None = Field(default=None, gt=0, description="Seconds that enough nodes are waited for.")
    round_attempts: int | None = Field(default=None, gt=0, description="Tries of a round before the training fails.")


class TrainingRequest(Configuration):
    """A training. ``strategy_conf`` holds the older names of the plan; what else it holds goes to the aggregation."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=(), title="TrainingRequest")

    training_id: str | None = Field(default=None, description="Agrees with the path where both are given.")
    strategy: str = Field(default="fedavg", description='"avg" or a name of the group locex.aggregation.')
    model_name: Name | None = Field(default=None, description="The model that the training begins with.")
    model_version: Name | None = Field(default=None, description="Its version.")
    server_conf: ServerConf = Field(default_factory=ServerConf, description="Rounds and time-outs.")
    strategy_conf: dict[str, Any] = Field(default_factory=dict, description="Nodes per round, and the strategy's own.")
    privacy_mechanisms: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("privacy-mechanisms", "privacy_mechanisms"),
        serialization_alias="privacy-mechanisms",
        description="The nodes' mechanisms by name. One whose half here averages takes the place of the strategy.",
    )
    configuration_id: str | None = Field(default=None, description="Sent to nodes as config_id.")
    federation: FederationName = Field(default="flower-grpc", description="The wire to the nodes.")
    port: Annotated[int, Field(gt=0, lt=65536)] | None = Field(default=None, description="The port for the nodes.")
    aggregation: str | None = Field(default=None, description="A name of the group locex.aggregation.")
    aggregation_config: dict[str, Any] = Field(default_factory=dict, description="The aggregation's own fields.")
    fit_config: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="Sent to nodes with every instruction."
    )

    @field_validator("training_id", "configuration_id", mode="before")
    @classmethod
    def _number_or_string(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _consistent(self) -> TrainingRequest:
        if (self.model_name is None) != (self.model_version is None):
            raise ValueError("model_name and model_version belong together")
        return self

    def plan(self) -> Plan:
        """Return the plan; raise `InvalidConfiguration` with pointers into the request."""
        chosen = {key: value for key, value in self.strategy_conf.items() if key in _PLANNED and value is not None}
        return validate(Plan, {**chosen, **self.server_conf.model_dump(exclude_none=True)}, at="/strategy_conf")

    def chosen_aggregation(self) -> AggregationSpec:
        """Return the aggregation that is named, else the strategy; a mechanism's half may take its place."""
        field = "aggregation" if self.aggregation else "strategy"
        given = self._own_fields()
        return AggregationSpec(
            name=_plugin(self.aggregation or self.strategy),
            pointer=f"/{field}",
            config=given["/strategy_conf"] | given["/aggregation_config"],
            config_pointer=next((place for place, fields in given.items() if fields), "/aggregation_config"),
            stated=field in self.model_fields_set,
        )

    def mechanisms(self) -> list[MechanismSpec]:
        """Return the privacy mechanisms; null is "not given"."""
        return [
            MechanismSpec(name=name, config=_without_nulls(fields)) for name, fields in self.privacy_mechanisms.items()
        ]

    def faults(self) -> list[dict[str, str]]:
        """Return where the request contradicts itself.

        The strategy "avg" beside a mechanism is no fault, since older clients always send it.
        """
        found = []
        chosen = self.chosen_aggregation()
        usual = self.privacy_mechanisms and _plugin(self.strategy) == "fedavg"
        if "strategy" in self.model_fields_set and _plugin(self.strategy) != chosen.name and not usual:
            found.append({"path": "/strategy", "message": f"{chosen.pointer} chooses {chosen.name!r} already"})
        own = self._own_fields()
        shared = {mechanism.pointer: mechanism.config for mechanism in self.mechanisms()}
        for key in sorted({key for fields in own.values() for key in fields}):
            # Two mechanisms may have fields of one name; the aggregation's own are never a mechanism's.
            places = [place for place, fields in {**own, **shared}.items() if key in fields]
            if len(places) > 1:
                message = "given in two places: say it once"
                found += [{"path": f"{place}/{key}", "message": message} for place in places]
        return found

    def _own_fields(self) -> dict[str, dict[str, Any]]:
        """Return the aggregation's own fields by the place where they were given."""
        own = {key: value for key, value in self.strategy_conf.items() if key not in _PLANNED}
        return {"/strategy_conf": _without_nulls(own), "/aggregation_config": _without_nulls(self.aggregation_config)}

    def sent_to_nodes(self) -> dict[str, bool | int | float | str]:
        """Return the fixed part of every instruction."""
        named = {} if self.configuration_id is None else {"config_id": self.configuration_id}
        return {**named, **self.fit_config}


def parse_request(content: dict[str, Any], training_id: str) -> tuple[TrainingRequest, list[str]]:
    """Validate a request; return it with warnings that name what was ignored."""
    known = {"privacy-mechanisms"} | set(TrainingRequest.model_fields)
    warnings = [
        f"{key!r} was ignored: {_NOT_USED.get(key, 'the collector does not know it')}"
        for key in sorted(set(content) - known)
    ]
    request = validate(TrainingRequest, {key: content[key] for key in content if key in known})
    if request.training_id not in {None, training_id}:
        raise InvalidConfiguration(
            f"the body's training_id {request.training_id!r} is not the path's {training_id!r}",
            remedy="leave training_id out of the body, or let them agree",
            errors=[{"path": "/training_id", "message": "does not agree with the path"}],
        )
    if faults := request.faults():
        listing = "; ".join(f"{fault['path']}: {fault['message']}" for fault in faults)
        raise InvalidConfiguration(
            f"the configuration contradicts itself: {listing}", remedy="leave out one of each", errors=faults
        )
    return request, warnings


def _without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _plugin(name: str) -> str:
    return "fedavg" if name == "avg" else name
