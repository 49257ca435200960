"""A participant's answers under SecAgg+: Flower's own mod, driven in the warm worker.

Flower's mod keeps the protocol (Bell et al. 2020, https://eprint.iacr.org/2020/704), its keys and its shares. Two
things are added. A node looks at what the server proposes before it takes part. And masks come from the whole of their
seeds: Flower folds each seed into 32 bits (those of pairs into 28) for NumPy's generator, few enough to be searched by
a server that wants to see one node's update.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.common import ndarrays_to_parameters
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.typing import Code, FitRes
from flwr.compat.common import recorddict_compat as compat

from locex.api import Participant, Stopped
from locex.errors import LocexError, PrivacyRefused
from locex.keystream import uniform_integers
from locex_flower import legacy, records
from locex_flower.answer import Answer, reason_of
from locex_flower.values import beyond

if TYPE_CHECKING:
    from locex_flower.secagg import SecureAggregation

log = logging.getLogger(__name__)

MASKS, STRONG = "locex.masks", "shake-256"
"""What our collector adds to the setup: how masks are drawn. A server that knows Flower's masks only does not."""

# The package exports the mod, a function, under the name of its module.
_flower: Any = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")


class _Answered(Exception):
    """Carries the answer of a fit that gave no update through Flower's mod."""

    def __init__(self, answer: Answer[Message]) -> None:
        super().__init__()
        self.answer = answer


class MaskedAnswers:
    """Answers messages of one registration; the protocol's state lives as long, and in memory only."""

    def __init__(self, mechanism: SecureAggregation) -> None:
        """``mechanism`` holds the job's parameters, and each update until it is masked."""
        self._mechanism = mechanism
        self._context = Context(0, 0, {}, RecordDict(), {})
        self._strong = False

    def trains_beyond(self, participant: Participant, message: Message) -> bool:
        """Tell whether a setup begins more rounds than this node takes part in; what follows belongs to its round."""
        configs = message.content.config_records.get(RECORD_KEY_CONFIGS)
        if configs is None or configs.get(Key.STAGE) != Stage.SETUP:
            return False
        group = message.metadata.group_id
        return beyond(participant, {"server_round": int(group)} if group.isdecimal() else {})

    def answer(self, participant: Participant, message: Message) -> Answer[Message]:
        """Take the protocol's next step; evaluations and questions are answered as without it."""
        if message.metadata.message_type.partition(".")[0] != MessageType.TRAIN:
            return records.answer(participant, message)
        try:
            return Answer(self._step(participant, message))
        except _Answered as fit:
            return fit.answer
        except Stopped:
            raise
        except LocexError as error:
            return Answer.refusal(records.failure(message, reason_of(error)), error)
        except Exception as error:  # noqa: BLE001 -- whatever a server sends costs its round only
            return Answer(records.failure(message, f"secagg: {type(error).__name__}: {error}"))

    def _step(self, participant: Participant, message: Message) -> Message:
        configs = message.content.config_records.get(RECORD_KEY_CONFIGS)
        if configs is None:
            raise PrivacyRefused(
                "the server asks for an update in clear, this job's leave masked only",
                remedy='name "secagg" in the privacy-mechanisms of the training, or leave it out of the job',
            )
        stage = configs.get(Key.STAGE)
        if stage == Stage.SETUP:
            self._agree(configs)
        elif stage == Stage.COLLECT_MASKED_VECTORS:
            _require_one_mask_each(configs)
        elif stage == Stage.UNMASK:
            _require_one_share_each(configs)
        with _masks(strong=self._strong):
            reply: Message = _flower.secaggplus_mod(message, self._context, self._fit(participant))
        return reply

    def _agree(self, configs: ConfigRecord) -> None:
        """Raise `PrivacyRefused` unless the server proposes what the job says."""
        config = self._mechanism.config
        shares, threshold = config.shares_of(int(configs[Key.SAMPLE_NUMBER]))  # type: ignore[arg-type]
        expected = {
            Key.SHARE_NUMBER: shares,
            Key.THRESHOLD: threshold,
            Key.CLIPPING_RANGE: config.clipping_range,
            Key.TARGET_RANGE: config.quantization_range,
            Key.MOD_RANGE: config.modulus_range,
            Key.MAX_WEIGHT: config.max_weight,
        }
        for key, value in expected.items():
            if configs.get(key) != value:
                raise PrivacyRefused(
                    f"the server's secagg has {key} {configs.get(key)!r}, this job's {value!r}",
                    remedy="let the privacy-mechanisms of the training and of the job agree",
                )
        self._strong = configs.get(MASKS) == STRONG
        if not self._strong and not config.flower_masks:
            raise PrivacyRefused(
                "the server knows Flower's own masks only, whose seeds can be searched",
                remedy="run the training at locex's collector, or accept them with flower_masks",
            )

    def _fit(self, participant: Participant) -> Callable[[Message, Context], Message]:
        def fit(message: Message, _: Context) -> Message:
            ins = compat.recorddict_to_fitins(message.content, keep_input=True)
            try:
                answered = legacy.answer(participant, ins)
            except Stopped:
                raise
            except Exception as error:
                log.exception("the training failed")
                # What a framework says of its fault may quote the data.
                told = records.failure(message, f"secagg: the training raised {type(error).__name__}")
                raise _Answered(Answer(told)) from error
            res = answered.reply
            if not isinstance(res, FitRes) or res.status.code is not Code.OK:
                raise _Answered(Answer(records.failure(message, res.status.message), answered.fatal))
            # Flower's arithmetic loses the last steps of tensors without axes.
            res.parameters = ndarrays_to_parameters([np.atleast_1d(one) for one in self._mechanism.take()])
            return Message(compat.fitres_to_recorddict(res, keep_input=False), reply_to=message)

        return fit


def _require_one_mask_each(configs: ConfigRecord) -> None:
    """Raise `PrivacyRefused` for neighbours that are named again: their masks would be added as often.

    A mask that is added 2ᵏ times leaves the k lowest bits bare, and Flower counts a name as often as it stands there.
    """
    named: list[Any] = [*configs[Key.SOURCE_LIST]]  # type: ignore[misc]
    if len(set(named)) != len(named):
        raise PrivacyRefused(
            "the server names a neighbour more than once, which would bare a part of this node's update",
            remedy="do not take part at this server",
        )


def _require_one_share_each(configs: ConfigRecord) -> None:
    """Raise `PrivacyRefused` for questions whose answers together would unmask a single node."""
    asked: list[Any] = [*configs[Key.ACTIVE_NODE_ID_LIST], *configs[Key.DEAD_NODE_ID_LIST]]  # type: ignore[misc]
    if len(set(asked)) != len(asked):
        raise PrivacyRefused(
            "the server asks for both secrets of a node, which would unmask its update",
            remedy="do not take part at this server",
        )


@contextmanager
def _masks(*, strong: bool) -> Iterator[None]:
    """Let Flower's mod draw its masks from whole seeds."""
    original = _flower.pseudo_rand_gen
    if strong:
        _flower.pseudo_rand_gen = uniform_integers
    try:
        yield
    finally:
        _flower.pseudo_rand_gen = original
