"""The store that the operator chose: the one plugin that runs in a service's own process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from locex.plugins.catalog import read_catalog
from locex.plugins.host import Host
from locex.settings import ServiceSettings
from locex.store.protocol import Store, StoreContext


def chosen_store(settings: ServiceSettings) -> Store:
    """Return the store, not yet open; raise the errors of plugins."""
    name, url = settings.store_location()
    return store_at(settings, name, url, settings.store_fields)


def store_at(settings: ServiceSettings, name: str, url: str, fields: Mapping[str, Any]) -> Store:
    """Return a store of the node, not yet open; ``fields`` are the plugin's."""
    host = Host()
    entry = read_catalog(settings.policy).find("store", name)
    context = StoreContext(settings.state_folder.absolute(), url, settings.node)
    return host.store(host.configure(host.load(entry), fields), context)
