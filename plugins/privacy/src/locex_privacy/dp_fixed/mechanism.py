"""The node's half of ``dp-fixed``."""

from __future__ import annotations

from pydantic import AliasChoices, Field

from locex.api import PrivacyContext, PrivacyMechanism, PrivacyReview
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_privacy.client_level.fields import NodeFields
from locex_privacy.client_level.mechanism import ClientLevelMechanism, NodeRules, trust_of
from locex_privacy.combinations import refuse_senseless


class DpFixedConfig(NodeFields):
    """Clipping norm, noise and budget."""

    clip_norm: float = Field(
        gt=0,
        validation_alias=AliasChoices("clip_norm", "init_clip_norm"),
        description="C: the L2 norm to which the update, all float tensors together, is clipped. Servers may lower it.",
    )
    noise_multiplier: float = Field(
        ge=1e-3,
        le=1e6,
        description="z: the noise's standard deviation is z · C; no less than 0.001, where ε is 500,000 a round.",
    )
    server_side_noising: bool = Field(
        default=False, description="Whether the server adds the noise, to the mean, and is trusted to do so."
    )

    def rules(self) -> NodeRules:
        """Return what the node holds to."""
        return NodeRules(
            mechanism="dp-fixed",
            clip_norm=self.clip_norm,
            max_clip_norm=self.clip_norm,
            noise_multiplier=self.noise_multiplier,
            update_multiplier=self.noise_multiplier,
            bit_stddev=None,
            server_side_noising=self.server_side_noising,
            weight_cap=self.weight_cap,
            delta=self.delta,
            max_epsilon=self.max_epsilon,
        )


class DpFixed:
    """Client-level differential privacy: fixed clipping, noise on the node or on the server (``dp-fixed``)."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return `DpFixedConfig`."""
        return DpFixedConfig

    @hookimpl
    def locex_review_privacy(self, config: DpFixedConfig, review: PrivacyReview) -> list[str]:
        """Refuse what does not go together with it; say what server-side noise means."""
        refuse_senseless("dp-fixed", review)
        return trust_of(config.rules())

    @hookimpl
    def locex_create_privacy(self, config: DpFixedConfig, context: PrivacyContext) -> PrivacyMechanism:
        """Return the mechanism, noised by the operating system's entropy."""
        return ClientLevelMechanism(config.rules(), context)
