"""``python -m locex.worker.inspect``: a short-lived process that answers what needs a plugin but no job.

It reads one question, `locex.jobs.questions.FormatQuestion` or `CheckQuestion`, and answers ``{"answer": …}`` or
``{"error": …}``.
"""

from __future__ import annotations

import sys
from typing import Any

from pydantic import BaseModel

from locex.errors import LocexError
from locex.jobs.questions import CheckQuestion, FormatQuestion, question_of
from locex.plugins.catalog import Catalog, read_catalog
from locex.plugins.host import Host
from locex.processes.channel import Channel
from locex.processes.memory import hard_limit
from locex.schemas.data_format import DataFormat
from locex.settings import PluginSettings, SiteSettings
from locex.worker.data import declared_by, site_context
from locex.worker.dry_run import dry_run


def source_format(question: FormatQuestion, catalog: Catalog, site: SiteSettings) -> DataFormat:
    """Return the format that a data source declares."""
    host, choice = Host(), question.data
    with hard_limit(site.plugin_memory_mb):
        loaded = host.load(catalog.find("data", choice.source, path="/data/source"))
        plugin = host.configure(loaded, choice.fields(), at="/data")
    return declared_by(host.data(plugin, site_context(site, 0)), plugin)


def answer(content: dict[str, Any]) -> BaseModel:
    """Return the answer to a question; raise what is wrong with what was asked about."""
    plugins, site = PluginSettings(), SiteSettings()
    catalog = read_catalog(plugins.policy, plugins.plugin_folders)
    question = question_of(content)
    if isinstance(question, CheckQuestion):
        return dry_run(question, catalog, site)
    return source_format(question, catalog, site)


def main() -> None:
    """Answer one question and end."""
    channel = Channel.take()
    question = channel.receive() or {}
    channel.end_with_parent()
    sys.path.extend(str(folder) for folder in PluginSettings().plugin_folders)
    try:
        channel.send({"answer": answer(question).model_dump(mode="json", exclude_none=True)})
    except LocexError as error:
        channel.send({"error": error.to_json()})
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 -- a plugin may raise anything
        reason, remedy = f"{type(error).__name__}: {error}", "check DATA_FOLDER and the data source"
        channel.send({"error": LocexError(reason, code="data-unavailable", remedy=remedy).to_json()})


if __name__ == "__main__":
    main()
