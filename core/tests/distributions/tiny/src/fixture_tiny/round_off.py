from dataclasses import replace

from pydantic import Field

from locex.api import Stage
from locex.errors import PrivacyRefused
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class RoundOffConfig(PluginConfig):
    decimals: int = Field(default=2, ge=0, description="Decimals that are left of a weight.")
    budget: int = Field(default=1000, gt=0, description="Rounds that the ledger of the data set allows.")


class Mechanism:
    stage = Stage.NOISE
    withholds_metrics = True

    def __init__(self, config, context):
        self._config = config
        self._context = context
        self._ledger = context.ledger("client")

    def requires(self, federation):
        pass

    def prepare(self, session):
        pass

    def before_fit(self, config):
        while True:
            version, events = self._ledger.read()
            if len(events) >= self._config.budget:
                raise PrivacyRefused("the budget is spent", remedy="raise it")
            if self._ledger.append(version, {"round": len(events) + 1}):
                break
        self._context.epsilon_spent("client", float(len(events) + 1))

    def incoming(self, parameters, config):
        return parameters

    def outgoing(self, update, config):
        rounded = {name: tensor.round(self._config.decimals) for name, tensor in update.parameters.items()}
        return replace(update, parameters=rounded, metrics={})

    def state(self):
        return {"decimals": self._config.decimals}

    def restore(self, state):
        assert state["decimals"] == self._config.decimals


class RoundOff:
    """Leaves few decimals of the weights: no protection, only a mechanism to test with."""

    @hookimpl
    def locex_config_model(self):
        return RoundOffConfig

    @hookimpl
    def locex_create_privacy(self, config, context):
        return Mechanism(config, context)
