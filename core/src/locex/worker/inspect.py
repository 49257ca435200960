"""``python -m locex.worker.inspect``: a short-lived process that answers what needs a plugin but no job.

It reads one question, `locex.jobs.questions.Question`, and answers ``{"answer": …}`` or
``{"error": …}``.
"""

from __future__ import annotations

import sys
from typing import Any

from pydantic import BaseModel

from locex.api import DataSource
from locex.errors import LocexError
from locex.jobs.questions import CheckQuestion, Examples, ExamplesQuestion, FormatQuestion, question_of
from locex.plugins.catalog import Catalog, read_catalog
from locex.plugins.host import Configured, Host
from locex.processes.channel import Channel
from locex.processes.memory import hard_limit
from locex.schemas.data_format import DataFormat
from locex.schemas.job import DataChoice
from locex.settings import PluginSettings, SiteSettings
from locex.worker.data import declared_by, site_context
from locex.worker.dry_run import dry_run


def source_format(question: FormatQuestion, catalog: Catalog, site: SiteSettings) -> DataFormat:
    """Return the format that a data source declares."""
    return declared_by(*_source(question.data, 0, catalog, site))


def examples(question: ExamplesQuestion, catalog: Catalog, site: SiteSettings) -> Examples:
    """Return how many training examples a data source has."""
    source, _ = _source(question.data, question.seed, catalog, site)
    return Examples(train=len(source.load().train))


def _source(choice: DataChoice, seed: int, catalog: Catalog, site: SiteSettings) -> tuple[DataSource, Configured]:
    host = Host()
    with hard_limit(site.plugin_memory_mb):
        loaded = host.load(catalog.find("data", choice.source, path="/data/source"))
        plugin = host.configure(loaded, choice.fields(), at="/data")
    return host.data(plugin, site_context(site, seed)), plugin


def answer(content: dict[str, Any]) -> BaseModel:
    """Return the answer to a question; raise what is wrong with what was asked about."""
    plugins, site = PluginSettings(), SiteSettings()
    catalog = read_catalog(plugins.policy, plugins.plugin_folders)
    question = question_of(content)
    if isinstance(question, CheckQuestion):
        return dry_run(question, catalog, site)
    if isinstance(question, ExamplesQuestion):
        return examples(question, catalog, site)
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
