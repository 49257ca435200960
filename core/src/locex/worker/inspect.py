"""``python -m locex.worker.inspect``: a short-lived process that answers what a plugin must be asked without a job."""

from __future__ import annotations

import sys

from locex.api import SiteContext
from locex.errors import LocexError
from locex.plugins.catalog import read_catalog
from locex.plugins.host import Host
from locex.processes.channel import Channel
from locex.schemas.data_format import DataFormat
from locex.schemas.job import DataChoice
from locex.settings import PluginSettings, SiteSettings


def source_format(choice: DataChoice) -> DataFormat:
    """Return the format that a data source declares."""
    plugins, site, host = PluginSettings(), SiteSettings(), Host()
    catalog = read_catalog(plugins.policy, plugins.plugin_folders)
    loaded = host.load(catalog.find("data", choice.source, path="/data/source"))
    return host.data(host.configure(loaded, choice.fields(), at="/data"), SiteContext(site.data_folder, 0)).format()


def main() -> None:
    """Answer one question and end."""
    channel = Channel.take()
    question = channel.receive()
    channel.end_with_parent()
    sys.path.extend(str(folder) for folder in PluginSettings().plugin_folders)
    try:
        answer = source_format(DataChoice.model_validate(question))
        channel.send({"format": answer.model_dump(mode="json", exclude_none=True)})
    except LocexError as error:
        channel.send({"error": error.to_json()})
    except Exception as error:  # noqa: BLE001 -- a plugin may raise anything
        channel.send({"error": LocexError(f"{type(error).__name__}: {error}", code="data-unavailable").to_json()})


if __name__ == "__main__":
    main()
