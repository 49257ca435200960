"""The rounds of a training, the same on every wire: fit, aggregate, checkpoint, evaluate, report."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from locex.api import Contribution, Evaluation, Scalar, Stopped
from locex.errors import FederationLost
from locex_controller.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from locex_controller.training.checks import cast, usable
from locex_controller.training.halves import Halves
from locex_controller.training.parameters import is_ordered, read_parameters
from locex_controller.training.spec import TrainingSpec
from locex_controller.training.wire import NodeFailed, Replies, Wire

if TYPE_CHECKING:
    from locex.api import Array

Report = Callable[[Mapping[str, Any]], None]
_CLIENT = "client_type_id"  # the metric by which a node tells its client's id
_LONGEST = 200  # characters of it that are kept
_POLL = 0.1  # seconds between looks at who is connected


class Training:
    """Runs the rounds that are left. ``report`` takes messages with a ``kind``: state or round."""

    def __init__(
        self, spec: TrainingSpec, halves: Halves, wire: Wire, report: Report, should_stop: Callable[[], bool]
    ) -> None:
        self._spec = spec
        self._plan = spec.plan
        self._halves = halves
        self._aggregation = halves.aggregation
        self._wire = wire
        self._report = report
        self._should_stop = should_stop
        # Which nodes are drawn must not be foretold by one of them.
        self._random = random.SystemRandom()
        self._current = Checkpoint(0, [], [], {})

    def run(self) -> None:
        """Run every round from the checkpoint's on; raise `FederationLost` when a round cannot be completed."""
        self._current = self._begin()
        if self._halves.opaque and self._plan.fraction_evaluate < 1:
            text = "only nodes that evaluate the last round get its model, which nobody can read here"
            self._report({"kind": "warning", "text": f"fraction_evaluate is {self._plan.fraction_evaluate:g}: {text}"})
        if self._current.round > self._spec.reported:
            if self._current.round < self._plan.num_rounds:  # after the last round the nodes are gone
                self._wait_for_nodes()
            self._report_round()
        for server_round in range(self._current.round + 1, self._plan.num_rounds + 1):
            self._round(server_round)

    def _begin(self) -> Checkpoint:
        if saved := read_checkpoint(self._spec.folder):
            self._aggregation.restore(saved.state)
            return saved
        names, parameters = self._initial()
        first = Checkpoint(0, names, parameters, self._aggregation.state())
        write_checkpoint(self._spec.folder, first)
        return first

    def _initial(self) -> tuple[list[str], list[Array]]:
        if self._spec.initial:
            names, parameters, metadata = read_parameters(self._spec.initial)
            if self._wire.carries_names or is_ordered(metadata):
                return names, parameters
            # Nodes begin with the same weights, and know their order.
        for _ in range(self._plan.round_attempts):
            for node in self._wait_for_nodes():
                try:
                    return self._wire.parameters(node, self._plan.round_timeout)
                except NodeFailed as failure:
                    self._report({"kind": "warning", "text": f"no initial parameters from node {node}: {failure}"})
        raise FederationLost(
            "no node gave initial parameters",
            remedy="name a model with weights.safetensors, or see the nodes' logs",
        )

    def _round(self, server_round: int) -> None:
        failures: dict[str, str] = {}
        for attempt in range(1, self._plan.round_attempts + 1):
            nodes = self._sample(self._wait_for_nodes(), self._plan.fraction_fit, self._plan.min_fit_clients)
            self._report({"kind": "state", "state": "TRAINING", "round": server_round, "nodes": len(nodes)})
            started = time.monotonic()
            replies = self._fit(server_round, nodes)
            failures = replies.failures
            fault = self._fault(nodes, replies) or self._aggregate(server_round, attempt, replies, started)
            if not fault:
                self._report_round()
                return
            self._report(
                {"kind": "attempt", "round": server_round, "attempt": attempt, "reason": fault, "failures": failures}
            )
        raise FederationLost(
            f"round {server_round} failed {self._plan.round_attempts} times: {fault}",
            remedy="see the named nodes' logs; the training goes on from its last checkpoint when started again",
            errors=[{"path": node, "message": reason} for node, reason in failures.items()],
        )

    def _fit(self, server_round: int, nodes: Sequence[str]) -> Replies[Contribution]:
        told = self._aggregation.configure(server_round)
        config = {**self._config(server_round), "fit_clients": len(nodes), **told}
        current = self._current
        replies = self._wire.fit(nodes, current.names, current.parameters, config, self._plan.round_timeout)
        return self._halves.accepted(replies, current.parameters)

    def _fault(self, nodes: Sequence[str], replies: Replies[Contribution]) -> str:
        needed = max(self._plan.min_fit_clients, math.ceil(self._plan.min_completion_rate_fit * len(nodes)))
        if len(replies.results) < needed:
            return f"{len(replies.results)} of {len(nodes)} nodes gave a good result, {needed} are needed"
        if replies.failures and not self._plan.accept_failures:
            return f"{len(replies.failures)} of {len(nodes)} nodes failed"
        return ""

    def _report_round(self) -> None:
        """Evaluate the newest parameters, and tell of their round."""
        self._report({**self._current.report, "kind": "round", **self._evaluate(self._current.round)})

    def _aggregate(self, server_round: int, attempt: int, replies: Replies[Contribution], started: float) -> str:
        contributions = [replies.results[node] for node in sorted(replies.results)]
        before = self._aggregation.state()
        parameters, fault = self._averaged(server_round, contributions)
        if fault:
            self._aggregation.restore(before)
            return f"the aggregate is refused: {fault}"
        report = {
            "round": server_round,
            "attempt": attempt,
            "participants": sorted(replies.results),
            "clients": _clients(replies.results),
            "failures": replies.failures,
            "examples": sum(one.examples for one in contributions),
            "train": _weighted([(one.examples, one.metrics) for one in contributions]),
            "fit_seconds": time.monotonic() - started,
        }
        names = [] if self._halves.opaque else self._current.names
        self._current = Checkpoint(server_round, names, parameters, self._aggregation.state(), report)
        write_checkpoint(self._spec.folder, self._current)
        return ""

    def _averaged(self, server_round: int, contributions: Sequence[Contribution]) -> tuple[list[Array], str]:
        """Return the new global parameters, and what is wrong with them, if anything."""
        current = self._current.parameters
        try:
            new = self._aggregation.aggregate(server_round, current, contributions)
        except ValueError as error:
            return [], str(error)
        return (new, "") if self._halves.opaque else cast(new, current)

    def _evaluate(self, server_round: int) -> dict[str, Any]:
        if not self._plan.fraction_evaluate:
            return {}
        self._report({"kind": "state", "state": "EVALUATING", "round": server_round})
        nodes = self._sample(self._wire.nodes(), self._plan.fraction_evaluate, self._plan.min_evaluate_clients)
        if not nodes:
            return {"evaluation": {}, "evaluation_failures": {}}
        started = time.monotonic()
        current = self._current
        config = self._config(server_round)
        replies = self._wire.evaluate(nodes, current.names, current.parameters, config, self._plan.round_timeout)
        return {
            "evaluation": _evaluation([one for one in replies.results.values() if usable(one)]),
            "evaluation_failures": replies.failures,
            "evaluate_seconds": time.monotonic() - started,
        }

    def _config(self, server_round: int) -> dict[str, Scalar]:
        return {**self._spec.fit_config, "server_round": server_round, "num_rounds": self._plan.num_rounds}

    def _sample(self, nodes: Sequence[str], share: float, minimum: int) -> list[str]:
        return self._random.sample(list(nodes), min(len(nodes), max(int(len(nodes) * share), minimum)))

    def _wait_for_nodes(self) -> list[str]:
        needed = self._plan.needed()
        deadline = time.monotonic() + self._plan.wait_timeout
        told = -1
        while len(nodes := self._wire.nodes()) < needed:
            if self._should_stop():
                raise Stopped
            if time.monotonic() > deadline:
                raise FederationLost(
                    f"{len(nodes)} of {needed} nodes connected within {self._plan.wait_timeout:g} s",
                    remedy="start the nodes' jobs, or lower min_available_clients and min_fit_clients",
                )
            if len(nodes) != told:
                told = len(nodes)
                self._report({"kind": "state", "state": "WAITING", "nodes": told, "needed": needed})
            time.sleep(_POLL)
        return nodes


def _clients(contributions: Mapping[str, Contribution]) -> dict[str, str]:
    """Return the id by which each node's job names its client, where it does."""
    told = {node: contribution.metrics.get(_CLIENT) for node, contribution in contributions.items()}
    return {node: client[:_LONGEST] for node, client in told.items() if isinstance(client, str)}


def _evaluation(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    return _weighted([(one.examples, {"loss": one.loss, **one.metrics}) for one in evaluations])


def _weighted(parts: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, float]:
    """Average every numeric metric over the nodes that give it, weighted by examples."""
    sums: dict[str, tuple[float, float]] = {}
    for examples, metrics in parts:
        for name, value in metrics.items():
            if isinstance(value, int | float) and math.isfinite(value) and examples > 0:
                total, weight = sums.get(name, (0.0, 0.0))
                sums[name] = (total + examples * value, weight + examples)
    return {name: total / weight for name, (total, weight) in sums.items()}
