"""``python -m locex_inference.following.evaluation``: a short-lived process that evaluates versions on local data.

It reads one `Question` from its input and answers ``{"answer": Report}`` or ``{"error": …}``. The data are the local
test split after the pipeline of the job that trained the version, as that job saw them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from locex.api import Dataset, InferencerContext, ModelArtefact
from locex.errors import LocexError
from locex.jobs.site import fill_in
from locex.plugins.catalog import Catalog, read_catalog
from locex.plugins.host import Host
from locex.processes.channel import Channel
from locex.processes.memory import hard_limit
from locex.schemas.job import JobConfiguration, parse_job
from locex.settings import PluginSettings, SiteSettings
from locex.worker.data import prepare
from locex.worker.plan import make_plan
from locex.worker.preparation import Surroundings
from locex_inference.following.question import Question, Subject
from locex_inference.following.scoring import Scorer
from locex_inference.following.verdict import Findings, Report, Tensor
from locex_inference.tensors import DTYPES

if TYPE_CHECKING:
    from locex.api import Array, Inferencer

_BATCH = 64
_SEED = 7
_SAMPLE = 2  # made-up examples, where there are no data
_FREE = 8  # their size along axes that are free


def evaluate(question: Question, catalog: Catalog, site: SiteSettings) -> Report:
    """Return what is to be known of the versions; raise what the candidate cannot be loaded or run for."""
    data, note = _test_data(question, catalog, site)
    with hard_limit(question.memory_mb):
        served = None
        if question.served is not None:
            try:
                served = _findings(question.served, question, catalog, data)
            except LocexError as error:
                note = note or f"the served version could not be evaluated: {error.message}"
        candidate = _findings(question.candidate, question, catalog, data)
    return Report(candidate=candidate, served=served, examples=len(data) if data else 0, note=note)


def _test_data(question: Question, catalog: Catalog, site: SiteSettings) -> tuple[Dataset | None, str]:
    """Return some of the test examples as the model takes them, or why there are none."""
    if not question.data:
        return None, "the guard does not ask for data"
    try:
        job = _job(question, site)
        plan = make_plan(job, question.candidate.metadata.meta.library, catalog, site, kinds=("data", "transform"))
        with tempfile.TemporaryDirectory(prefix="locex-guard-") as folder:
            test = prepare(plan, site, Surroundings(Path(folder), {})).data.test
            if not len(test):
                return None, "there are no test examples"
            chosen = np.arange(len(test))
            if len(test) > question.examples:
                chosen = np.sort(np.random.default_rng(_SEED).choice(len(test), question.examples, replace=False))
            return Dataset(np.array(test.x[chosen]), np.array(test.y[chosen])), ""
    except LocexError as error:
        return None, error.message
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 -- a data source or step may raise anything
        return None, f"{type(error).__name__}: {error}"


def _job(question: Question, site: SiteSettings) -> JobConfiguration:
    metadata = question.candidate.metadata
    content = question.configuration or {
        "server_address": "unused:1",
        "model_name": metadata.model_name,
        "model_version": metadata.model_version,
    }
    return fill_in(parse_job(content)[0], site)[0]


def _findings(subject: Subject, question: Question, catalog: Catalog, data: Dataset | None) -> Findings:
    host = Host()
    plugin = host.configure(host.load(catalog.find("inferencer", subject.inferencer)), subject.fields)
    artefact = ModelArtefact(Path(subject.path), subject.metadata, subject.digest)
    inferencer = host.inferencer(plugin, InferencerContext(artefact, question.threads, question.allow_programs))
    try:
        finite, scorer = True, Scorer()
        for inputs, targets in _batches(inferencer, data):
            outputs = inferencer.run(inputs, [info.name for info in inferencer.outputs])
            finite = finite and all(np.isfinite(one).all() for one in outputs.values() if one.dtype.kind == "f")
            if targets is not None:
                scorer.take(outputs[inferencer.outputs[0].name], targets)
        return Findings(
            inputs=[Tensor.of(info) for info in inferencer.inputs],
            outputs=[Tensor.of(info) for info in inferencer.outputs],
            finite=bool(finite),
            score=scorer.score(),
        )
    finally:
        inferencer.close()


def _batches(inferencer: Inferencer, data: Dataset | None) -> Iterator[tuple[dict[str, Array], Array | None]]:
    """Yield examples for a model of one input, else made-up ones; a fixed first axis is the size of a batch."""
    first = inferencer.inputs[0]
    if data is None or len(inferencer.inputs) > 1:
        yield {info.name: _made_up(info.shape, info.datatype) for info in inferencer.inputs}, None
        return
    size = first.shape[0] if first.shape and first.shape[0] > 0 else _BATCH
    for begin in range(0, len(data) - size + 1 if size != _BATCH else len(data), size):
        x = np.ascontiguousarray(data.x[begin : begin + size], DTYPES[first.datatype])
        yield {first.name: x}, data.y[begin : begin + size]


def _made_up(shape: tuple[int, ...], datatype: str) -> Array:
    sizes = [size if size >= 0 else _FREE if axis else _SAMPLE for axis, size in enumerate(shape)]
    dtype = DTYPES[datatype]
    if dtype.kind == "O":
        return np.full(sizes, b"", object)
    generator = np.random.default_rng(_SEED)
    return generator.normal(size=sizes).astype(dtype) if dtype.kind in "fV" else np.zeros(sizes, dtype)


def main() -> None:
    """Answer one question and end."""
    channel = Channel.take()
    content = channel.receive() or {}
    channel.end_with_parent()
    plugins, site = PluginSettings(), SiteSettings()
    sys.path.extend(str(folder) for folder in plugins.plugin_folders)
    try:
        catalog = read_catalog(plugins.policy, plugins.plugin_folders)
        report = evaluate(Question.model_validate(content), catalog, site)
        channel.send({"answer": report.model_dump(mode="json")})
    except LocexError as error:
        channel.send({"error": error.to_json()})
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 -- an inferencer may raise anything
        channel.send({"error": LocexError(f"{type(error).__name__}: {error}", code="inference-failed").to_json()})


if __name__ == "__main__":
    main()
