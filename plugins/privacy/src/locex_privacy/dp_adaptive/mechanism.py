"""The node's half of ``dp-adaptive``."""

from __future__ import annotations

from locex.api import PrivacyContext, PrivacyMechanism, PrivacyReview
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_privacy.client_level.mechanism import ClientLevelMechanism, NodeRules, trust_of
from locex_privacy.combinations import refuse_senseless
from locex_privacy.dp_adaptive.config import DpAdaptiveConfig


def rules_of(config: DpAdaptiveConfig) -> NodeRules:
    """Return what the node holds to."""
    return NodeRules(
        mechanism="dp-adaptive",
        clip_norm=config.init_clip_norm,
        max_clip_norm=config.max_clip_norm or 100 * config.init_clip_norm,
        noise_multiplier=config.noise_multiplier,
        update_multiplier=config.update_multiplier,
        bit_stddev=config.count_stddev,
        server_side_noising=config.server_side_noising,
        weight_cap=config.weight_cap,
        delta=config.delta,
        max_epsilon=config.max_epsilon,
    )


class DpAdaptive:
    """Client-level differential privacy: clipping at a quantile, noise on the server or the node (``dp-adaptive``)."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return `DpAdaptiveConfig`."""
        return DpAdaptiveConfig

    @hookimpl
    def locex_review_privacy(self, config: DpAdaptiveConfig, review: PrivacyReview) -> list[str]:
        """Refuse what does not go together with it; say what server-side noise means, and when noise is wasted."""
        refuse_senseless("dp-adaptive", review)
        warnings = trust_of(rules_of(config))
        if config.update_multiplier > 2 * config.noise_multiplier:
            warnings.append(
                f"dp-adaptive spends most of its noise on the clip count: the update gets "
                f"{config.update_multiplier:.3g} instead of {config.noise_multiplier:g}; raise clip_count_stddev"
            )
        return warnings

    @hookimpl
    def locex_create_privacy(self, config: DpAdaptiveConfig, context: PrivacyContext) -> PrivacyMechanism:
        """Return the mechanism, noised by the operating system's entropy."""
        return ClientLevelMechanism(rules_of(config), context)
