"""The fields of ``dp-adaptive``: the older implementation's names, with their meaning."""

from __future__ import annotations

from pydantic import Field, model_validator

from locex_privacy.client_level.fields import NodeFields, SharedFields
from locex_privacy.dp_adaptive.split import update_multiplier


class AdaptiveFields(SharedFields):
    """What both halves are given."""

    init_clip_norm: float = Field(default=0.1, gt=0, description="C of the first round: an L2 norm.")
    noise_multiplier: float = Field(
        default=1.0, ge=1e-3, le=1e6, description="z of a round, update and norm bit together; no less than 0.001."
    )
    server_side_noising: bool = Field(
        default=True, description="Whether the server adds the noise, to mean and count, and is trusted to do so."
    )
    clip_count_stddev: float | None = Field(
        default=None,
        gt=0,
        description="σ_b, more than z/2: standard deviation of the noise on the count of norm bits under server-side "
        "noise (default: num_sampled_clients / 20), on each node's own bit under client-side noise (default: z).",
    )
    clip_norm_target_quantile: float = Field(
        default=0.5, ge=0, le=1, description="γ: the share of updates that are to stay below C. The collector's."
    )
    clip_norm_lr: float = Field(
        default=0.2, gt=0, le=10, description="η: C is multiplied by exp(−η (share below C − γ)). The collector's."
    )

    @model_validator(mode="after")
    def _leaves_noise(self) -> AdaptiveFields:
        """Refuse a split of the noise that does not exist."""
        if self.server_side_noising and self.clip_count_stddev is None and self.num_sampled_clients is None:
            raise ValueError("num_sampled_clients or clip_count_stddev is required for server-side noise")
        update_multiplier(self.noise_multiplier, self.count_stddev)
        return self

    @property
    def count_stddev(self) -> float:
        """σ_b, as given or as its default is."""
        if self.clip_count_stddev is not None:
            return self.clip_count_stddev
        if self.server_side_noising:
            return (self.num_sampled_clients or 0) / 20
        return self.noise_multiplier

    @property
    def update_multiplier(self) -> float:
        """z_Δ."""
        return update_multiplier(self.noise_multiplier, self.count_stddev)


class DpAdaptiveConfig(AdaptiveFields, NodeFields):
    """Clipping norm, noise and budget of a node."""

    max_clip_norm: float | None = Field(
        default=None,
        gt=0,
        description="The largest C that this node follows, larger ones are lowered. Default: 100 · init_clip_norm.",
    )


class DpAdaptiveAggregationConfig(AdaptiveFields):
    """Clipping norm and noise at the collector."""
