"""The node's half of ``compression``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from locex.api import (
    Array,
    PrivacyContext,
    PrivacyMechanism,
    PrivacyReview,
    Scalar,
    Stage,
    Update,
)
from locex.errors import PrivacyRefused
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_privacy.combinations import refuse_senseless
from locex_privacy.compression.codecs import Codec, Half, Int8, TopK
from locex_privacy.compression.layout import differences, is_float
from locex_privacy.mechanism import Mechanism

_OWN_COLLECTOR = (
    "compression: only a locex collector with its half (privacy-mechanisms: compression) can read the updates; a stock "
    "Flower server fails on them"
)


class CompressionConfig(PluginConfig):
    """How updates are written."""

    method: Literal["int8", "fp16", "topk"] = Field(
        default="int8",
        description="int8: a quarter of the bytes; fp16: half; topk: the largest coordinates alone, 8 bytes each.",
    )
    keep: float = Field(default=0.05, gt=0, le=1, description="Share of the coordinates that topk sends; of topk only.")

    @model_validator(mode="after")
    def _keep_is_of_topk(self) -> CompressionConfig:
        if "keep" in self.model_fields_set and self.method != "topk":
            raise ValueError(f"keep is a field of topk, not of {self.method}")
        return self

    def codec(self) -> Codec:
        """Return the codec."""
        if self.method == "topk":
            return TopK(self.keep)
        return Half() if self.method == "fp16" else Int8()


class ErrorFeedback(Mechanism):
    """Sends the difference to the round's global weights in fewer bytes, and what that lost with the next one.

    Error feedback: Seide et al. 2014, Karimireddy et al. 2019. The residual is part of the state, so that a restart
    loses none of it. Arrays leave under the names "0", "1", …: first the codec's, then the tensors that are no floats.
    """

    stage = Stage.COMPRESS
    withholds_metrics = False

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._residual: Array | None = None

    def outgoing(
        self,
        update: Update,
        config: Mapping[str, Scalar],  # noqa: ARG002 -- the Protocol's
    ) -> Update:
        """Return the update as the codec's arrays; raise `PrivacyRefused` for one that float32 cannot hold."""
        reference = [update.reference[name] for name in update.parameters]
        vector = differences(list(update.parameters.values()), reference)
        if self._residual is not None and self._residual.shape == vector.shape:
            vector = vector + self._residual
        if not np.isfinite(vector).all():
            raise PrivacyRefused(
                "the update is not finite and cannot be compressed; nothing was sent", remedy="lower the learning rate"
            )
        arrays = self._codec.encode(vector)
        self._residual = vector - self._codec.decode(arrays, vector.size)
        others = [tensor for tensor in update.parameters.values() if not is_float(tensor)]
        sent = {str(position): array for position, array in enumerate([*arrays, *others])}
        return Update(sent, update.reference, update.examples, update.metrics)

    def state(self) -> dict[str, Any]:
        """Return what later updates still have to carry."""
        return {} if self._residual is None else {"residual": self._residual}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the residual."""
        residual = state.get("residual")
        self._residual = None if residual is None else np.asarray(residual, np.float32)


class Compression:
    """Updates in a half, a quarter or a tenth of the bytes, with error feedback (``compression``)."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return `CompressionConfig`."""
        return CompressionConfig

    @hookimpl
    def locex_review_privacy(self, review: PrivacyReview) -> list[str]:
        """Refuse what does not go together with it; say that the server must be ours."""
        refuse_senseless("compression", review)
        return [_OWN_COLLECTOR]

    @hookimpl
    def locex_create_privacy(
        self,
        config: CompressionConfig,
        context: PrivacyContext,  # noqa: ARG002 -- the hook's
    ) -> PrivacyMechanism:
        """Return the mechanism."""
        return ErrorFeedback(config.codec())
