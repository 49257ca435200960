"""One secure sum: Flower's SecAgg+ workflow, stage by stage, over the training's own exchange of messages.

Flower's workflow wants a grid, a strategy and a client manager, and waits with a poll of 3 s. Here its stages run
unchanged; the grid is our exchange, and the strategy only hands in the instruction and takes the average out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common import FitIns, FitRes, Parameters, bytes_to_ndarray, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common import recorddict_compat as compat
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.serverapp.grid import Grid

from locex.api import Contribution, Scalar, Stopped
from locex.keystream import uniform_integers
from locex_controller.secagg import SecAggConfig
from locex_controller.training.wire import Replies

if TYPE_CHECKING:
    from locex.api import Array

MASKS, STRONG = "locex.masks", "shake-256"
"""Told to nodes in the setup: masks come from whole seeds. Flower folds seeds into 32 bits, which can be searched."""

Exchange = Callable[[Sequence[Message], Callable[[Message], Message], float], Replies[Message]]

_flower: Any = importlib.import_module("flwr.server.workflow.secure_aggregation.secaggplus_workflow")
_flower.pseudo_rand_gen = uniform_integers  # in this process, which runs one training and nothing else of Flower's


class SecureSum:
    """SecAgg+ among some nodes. First `exchange_keys`, then, if no node was lost, `average`.

    ``failures`` tells of every node that was lost.
    """

    def __init__(
        self,
        config: SecAggConfig,
        nodes: Sequence[str],
        parameters: Sequence[Array],
        instruction: Mapping[str, Scalar],
        timeout: float,
        exchange: Exchange,
    ) -> None:
        fields = config.model_dump(exclude={"timeout"})
        self._workflow = _flower.SecAggPlusWorkflow(**fields, timeout=config.timeout or timeout)
        self._state = _flower.WorkflowState()
        self._shapes = [np.shape(one) for one in parameters]
        self._grid = _Grid(exchange, self._shapes, config.modulus_range)
        self._strategy = _Round(nodes, instruction)
        records = RecordDict({MAIN_CONFIGS_RECORD: ConfigRecord({WorkflowKey.CURRENT_ROUND: _round(instruction)})})
        records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(ndarrays_to_parameters(list(parameters)), True)
        self._context = LegacyContext(Context(0, 0, {}, records, {}), strategy=self._strategy)
        self.failures = self._grid.failures

    def exchange_keys(self) -> bool:
        """Run the stages before the training: set up, and share keys; False: it cannot go on with these nodes."""
        stages = (self._workflow.setup_stage, self._workflow.share_keys_stage)
        return all(self._run(stage) and not self.failures for stage in stages)

    def average(self) -> dict[str, Contribution]:
        """Let the nodes train, and return for each that sent a masked update the average of all; none: it failed."""
        stages = (self._workflow.collect_masked_vectors_stage, self._workflow.unmask_stage)
        if not all(self._run(stage) for stage in stages):
            return {}
        return {
            str(cast("GridClientProxy", proxy).node_id): self._contribution(res)
            for proxy, res in self._strategy.results
        }

    def _run(self, stage: Callable[[Grid, LegacyContext, Any], bool]) -> bool:
        """Run a stage; what a node sent may break it in many ways, and costs this sum only."""
        try:
            return stage(self._grid.as_flowers(), self._context, self._state)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 -- Flower's code raises what it meets
            self._grid.fault = f"{type(error).__name__}: {error}"
            return False

    def fault(self) -> str:
        """Return why the sum failed."""
        return self._grid.fault or "fewer nodes were left than reconstruction_threshold asks for"

    def _contribution(self, res: FitRes) -> Contribution:
        arrays = cast("list[Array]", parameters_to_ndarrays(res.parameters))
        shaped = [array.reshape(shape) for array, shape in zip(arrays, self._shapes, strict=True)]
        return Contribution(shaped, res.num_examples, dict(res.metrics))


class _Round(FedAvg):
    """Flower's strategy of one round: the nodes are chosen already, and the average is only kept."""

    def __init__(self, nodes: Sequence[str], instruction: Mapping[str, Scalar]) -> None:
        super().__init__()
        self._nodes = nodes
        self._instruction = instruction
        self.results: list[tuple[ClientProxy, FitRes]] = []

    def configure_fit(
        self,
        server_round: int,  # noqa: ARG002 -- Flower's signature
        parameters: Parameters,
        client_manager: ClientManager,  # noqa: ARG002
    ) -> list[tuple[ClientProxy, FitIns]]:
        fit = FitIns(parameters, dict(self._instruction))
        return [(GridClientProxy(int(node), cast("Grid", None), 0), fit) for node in self._nodes]

    def aggregate_fit(
        self,
        server_round: int,  # noqa: ARG002 -- Flower's signature
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[Any],  # noqa: ARG002
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        self.results = results
        return None, {}


class _Grid:
    """What the workflow asks of Flower's grid. Replies that are not what their stage gives count as failures."""

    def __init__(self, exchange: Exchange, shapes: Sequence[tuple[int, ...]], modulus: int) -> None:
        self._exchange = exchange
        self._shapes = [(1,), *(shape or (1,) for shape in shapes)]
        self._modulus = modulus
        self.failures: dict[str, str] = {}
        self.fault = ""

    def as_flowers(self) -> Grid:
        return cast("Grid", self)

    def send_and_receive(self, messages: Sequence[Message], *, timeout: float) -> list[Message]:
        stage = str(messages[0].content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]) if messages else ""
        if stage == Stage.SETUP:
            for message in messages:
                message.content.config_records[RECORD_KEY_CONFIGS][MASKS] = STRONG
        replies = self._exchange(messages, lambda reply: self._checked(stage, reply), timeout)
        self.failures.update(replies.failures)
        return list(replies.results.values())

    def _checked(self, stage: str, reply: Message) -> Message:
        told = reply.content.config_records[RECORD_KEY_CONFIGS]
        if stage == Stage.SETUP:
            _require(told, (Key.PUBLIC_KEY_1, bytes), (Key.PUBLIC_KEY_2, bytes))
        elif stage == Stage.SHARE_KEYS:
            _require_lists(told, (Key.DESTINATION_LIST, int), (Key.CIPHERTEXT_LIST, bytes))
        elif stage == Stage.UNMASK:
            _require_lists(told, (Key.NODE_ID_LIST, int), (Key.SHARE_LIST, bytes))
        else:
            self._require_masked(told)
            compat.recorddict_to_fitres(reply.content, keep_input=True)
        return reply

    def _require_masked(self, told: ConfigRecord) -> None:
        """Check shapes and range, which is all that a masked update tells; whether it is finite shows in the sum."""
        _require_lists(told, (Key.MASKED_PARAMETERS, bytes))
        arrays = [bytes_to_ndarray(one) for one in cast("list[bytes]", told[Key.MASKED_PARAMETERS])]
        if [one.shape for one in arrays] != self._shapes:
            raise ValueError("the masked tensors have other shapes than the model's")
        for one in arrays:
            if one.dtype != np.int64 or (one.size and not 0 <= one.min() <= one.max() < self._modulus):
                raise ValueError("the masked tensors are not integers below modulus_range")


def _require(told: ConfigRecord, *fields: tuple[str, type]) -> None:
    for key, kind in fields:
        if not isinstance(told[key], kind):
            raise TypeError(f"{key} is no {kind.__name__}")


def _require_lists(told: ConfigRecord, *fields: tuple[str, type]) -> None:
    lengths = set()
    for key, kind in fields:
        values = told[key]
        if not isinstance(values, list) or not all(isinstance(one, kind) for one in values):
            raise TypeError(f"{key} is no list of {kind.__name__}")
        lengths.add(len(values))
    if len(lengths) > 1:
        raise ValueError("lists that belong together have different lengths")


def _round(instruction: Mapping[str, Scalar]) -> int:
    return int(instruction["server_round"])
