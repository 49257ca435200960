"""The mechanism ``dp-sgd``; this module imports no framework."""

from __future__ import annotations

from locex.api import PrivacyContext, PrivacyMechanism, PrivacyReview
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig
from locex_privacy.dp_sgd.config import DpSgdConfig
from locex_privacy.dp_sgd.mechanism import DpSgdMechanism
from locex_privacy.dp_sgd.review import review as reviewed


class DpSgd:
    """Example-level differential privacy: clipped and noised gradients of Poisson-sampled batches (``dp-sgd``)."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return `DpSgdConfig`."""
        return DpSgdConfig

    @hookimpl
    def locex_review_privacy(self, config: DpSgdConfig, review: PrivacyReview) -> list[str]:
        """Refuse what cannot be trained with private gradients."""
        return reviewed(config, review)

    @hookimpl
    def locex_create_privacy(self, config: DpSgdConfig, context: PrivacyContext) -> PrivacyMechanism:
        """Return the mechanism, which draws from the operating system's entropy."""
        return DpSgdMechanism(config, context)
