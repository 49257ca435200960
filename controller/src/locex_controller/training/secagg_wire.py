"""A SuperLink whose nodes' updates arrive as one sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from locex.api import Contribution, Scalar
from locex.errors import InvalidConfiguration
from locex_controller.secagg import FEWEST, SecAggConfig
from locex_controller.training.secagg import SecureSum
from locex_controller.training.spec import TrainingSpec
from locex_controller.training.superlink_wire import SuperLinkWire
from locex_controller.training.wire import Replies

if TYPE_CHECKING:
    from locex.api import Array


class SecAggWire(SuperLinkWire):
    """Serves on the port of the spec as soon as it is made."""

    carries_names = False

    def __init__(self, spec: TrainingSpec, should_stop: Callable[[], bool], config: SecAggConfig) -> None:
        super().__init__(spec, should_stop)
        self._secagg = config

    def fit(
        self,
        nodes: Sequence[str],
        names: Sequence[str],  # noqa: ARG002 -- masked tensors have none
        parameters: Sequence[Array],
        config: Mapping[str, Scalar],
        timeout: float,
    ) -> Replies[Contribution]:
        """Let nodes train; every contribution has the weighted average of all, which is all that is known of them.

        A node that is lost before training began is left out and the keys are exchanged anew; one that is lost later
        costs nothing but its share, as long as enough are left to remove its masks.
        """
        left, replies = list(nodes), Replies[Contribution]()
        if len(left) > self._secagg.most:
            raise InvalidConfiguration(
                f"{len(left)} nodes are more than secagg can sum: modulus_range / quantization_range is "
                f"{self._secagg.most}",
                remedy="lower quantization_range or fraction_fit",
            )
        while True:
            secure = SecureSum(self._secagg, left, parameters, config, timeout, self.exchange)
            ready = secure.exchange_keys()
            lost = secure.failures.copy()
            replies.failures |= lost
            left = [node for node in left if node not in lost]
            if ready or not lost or len(left) < FEWEST:
                break
        if ready:
            replies.results = secure.average()
            replies.failures |= secure.failures
        for node in left:
            if node not in replies.results:
                replies.failures.setdefault(node, f"its update was not summed: {secure.fault()}")
        return replies
