"""The store that the operator chose: the one plugin that runs in a service's own process."""

from __future__ import annotations

from locex.plugins.catalog import read_catalog
from locex.plugins.host import Host
from locex.settings import ServiceSettings
from locex.store.protocol import Store, StoreContext


def chosen_store(settings: ServiceSettings) -> Store:
    """Return the store, not yet open; raise the errors of plugins."""
    host = Host()
    entry = read_catalog(settings.policy).find("store", settings.store)
    context = StoreContext(settings.state_folder.absolute(), settings.store_url)
    return host.store(host.configure(host.load(entry), {}), context)
