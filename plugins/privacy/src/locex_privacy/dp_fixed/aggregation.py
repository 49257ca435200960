"""The collector's half of ``dp-fixed``: the unweighted mean, with noise where the collector adds it."""

from __future__ import annotations

from pydantic import AliasChoices, Field, model_validator

from locex.api import Aggregation
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_privacy.client_level.aggregation import NoisyMean, UnweightedMean
from locex_privacy.client_level.fields import SharedFields


class DpFixedAggregationConfig(SharedFields):
    """Who adds the noise; clipping norm and noise where the collector does."""

    server_side_noising: bool = Field(default=False, description="Whether the collector adds the noise, to the mean.")
    clip_norm: float | None = Field(
        default=None,
        gt=0,
        validation_alias=AliasChoices("clip_norm", "init_clip_norm"),
        description="C, to which nodes clip and the collector clips again; of use under server-side noise only.",
    )
    noise_multiplier: float | None = Field(
        default=None,
        ge=1e-3,
        le=1e6,
        description="z: for m contributions the mean gets noise of standard deviation z · C / m, under server-side "
        "noise only.",
    )

    @model_validator(mode="after")
    def _noise_is_told(self) -> DpFixedAggregationConfig:
        if self.server_side_noising and (self.clip_norm is None or self.noise_multiplier is None):
            raise ValueError("clip_norm and noise_multiplier are required for server-side noise")
        return self


class DpFixedAggregation:
    """Unweighted mean, with noise where the collector adds it: the collector's half of ``dp-fixed``."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return `DpFixedAggregationConfig`."""
        return DpFixedAggregationConfig

    @hookimpl
    def locex_create_aggregation(self, config: DpFixedAggregationConfig) -> Aggregation:
        """Return the aggregation."""
        if config.server_side_noising and config.clip_norm and config.noise_multiplier:
            return NoisyMean(config.clip_norm, config.noise_multiplier, config.noise_multiplier)
        return UnweightedMean()
