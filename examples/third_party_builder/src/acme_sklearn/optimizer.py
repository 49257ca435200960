"""The optimizer ``sklearn.sgd``: how an ``SGDClassifier`` steps."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class SgdConfig(PluginConfig):
    """Fields of ``sklearn.linear_model.SGDClassifier`` that say how it steps."""

    learning_rate: float = Field(default=0.01, gt=0, description="Constant step size (eta0).")
    alpha: float = Field(default=1e-4, ge=0, description="Strength of the L2 penalty.")


class Sgd:
    """Stochastic gradient descent as scikit-learn does it."""

    @hookimpl
    def locex_config_model(self) -> type[PluginConfig]:
        """Return the optimizer's fields."""
        return SgdConfig

    @hookimpl
    def locex_create_optimizer(self, config: SgdConfig) -> dict[str, Any]:
        """Return arguments of the estimator."""
        return {"learning_rate": "constant", "eta0": config.learning_rate, "alpha": config.alpha}
