"""Every hook of locex. A plugin is a class named by an entry point; mark its methods with ``@hookimpl``.

The entry point's *group* says the kind (``locex.transform``), its *name* is what users type in a job. The class is
made without arguments and implements two hooks: `locex_config_model` and the ``locex_create_…`` of its kind::

    from locex.hookspecs import hookimpl

    class BasicNorm:
        @hookimpl
        def locex_config_model(self):
            return BasicNormConfig

        @hookimpl
        def locex_create_transform(self, config):
            return Step(config)

The module that the entry point names imports no framework at module level: import it inside ``locex_create_…``.
Within a major version of locex-core hooks only gain arguments; a plugin may leave out those that it does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from locex.api import (
        Aggregation,
        BuildContext,
        ContributionDecoder,
        DataSource,
        Federation,
        FederationContext,
        Inferencer,
        InferencerContext,
        PrivacyContext,
        PrivacyMechanism,
        PrivacyReview,
        SiteContext,
        TrainingSession,
        Transform,
    )
    from locex.schemas.plugin import PluginConfig
    from locex.store.protocol import Store, StoreContext

hookspec = pluggy.HookspecMarker("locex")
hookimpl = pluggy.HookimplMarker("locex")


@hookspec(firstresult=True)
def locex_config_model() -> type[PluginConfig]:
    """Return the model of what users may configure. Called in describe processes too: import no framework."""


@hookspec(firstresult=True)
def locex_create_architecture(config: PluginConfig, seed: int) -> Any:
    """Return a new model of the plugin's library (PyTorch: a ``torch.nn.Module``) with weights drawn from ``seed``.

    Group ``locex.architecture``, names ``<library>.<name>``. Called by a builder whose artefact names it.
    """


@hookspec(firstresult=True)
def locex_create_builder(config: PluginConfig, context: BuildContext) -> TrainingSession:
    """Return a session: model loaded, data placed, optimizer made. Group ``locex.builder``; called once per job.

    Raise `InvalidModel` for an artefact that cannot be used, `InvalidConfiguration` for an unknown loss or metric.
    """


@hookspec(firstresult=True)
def locex_create_optimizer(config: PluginConfig, parameters: Any) -> Any:
    """Return the library's optimizer over ``parameters``. Group ``locex.optimizer``, names ``<library>.<name>``."""


@hookspec(firstresult=True)
def locex_create_scheduler(config: PluginConfig, optimizer: Any) -> Any:
    """Return the library's scheduler over ``optimizer``. Group ``locex.scheduler``, names ``<library>.<name>``."""


@hookspec(firstresult=True)
def locex_create_transform(config: PluginConfig) -> Transform:
    """Return one step of a pipeline. Group ``locex.transform``; called once for every step of a job's pipelines."""


@hookspec(firstresult=True)
def locex_create_data(config: PluginConfig, context: SiteContext) -> DataSource:
    """Return a local data source. Group ``locex.data``; called once per job, and when a format is asked for."""


@hookspec(firstresult=True)
def locex_create_privacy(config: PluginConfig, context: PrivacyContext) -> PrivacyMechanism:
    """Return a mechanism that protects what leaves the node. Group ``locex.privacy``; called once per job."""


@hookspec(firstresult=True)
def locex_review_privacy(config: PluginConfig, review: PrivacyReview) -> list[str]:
    """Return warnings for the job's record, before the job is taken. Optional; group ``locex.privacy``.

    Raise `PrivacyRefused` where the mechanism makes no sense with the others, this federation or this library.
    """


@hookspec(firstresult=True)
def locex_create_federation(config: PluginConfig, context: FederationContext) -> Federation:
    """Return a connection, not yet open, to a federation. Group ``locex.federation``; called once per job."""


@hookspec(firstresult=True)
def locex_create_aggregation(config: PluginConfig) -> Aggregation | ContributionDecoder:
    """Return the collector's half of a mechanism, or a strategy. Group ``locex.aggregation``; once per training."""


@hookspec(firstresult=True)
def locex_create_inferencer(config: PluginConfig, context: InferencerContext) -> Inferencer:
    """Return a loaded model that answers. Group ``locex.inferencer``; called once per version of a model.

    Raise `InvalidModel` for an artefact that cannot be used.
    """


@hookspec(firstresult=True)
def locex_create_store(config: PluginConfig, context: StoreContext) -> Store:
    """Return a store, not yet open. Group ``locex.store``; called once at the start of a service, in its process."""
