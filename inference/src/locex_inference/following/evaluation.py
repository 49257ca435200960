"""``python -m locex_inference.following.evaluation``: a short-lived process that evaluates versions on local data.

It reads one `Evaluation` from its input and answers ``{"answer": Report}`` or ``{"error": …}``. The data are the local
test split after the pipeline of the job that trained the version, as that job saw them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from locex.api import Dataset, TensorInfo
from locex.errors import LocexError
from locex.jobs.site import fill_in
from locex.plugins.catalog import Catalog, read_catalog
from locex.processes.channel import Channel
from locex.processes.memory import hard_limit
from locex.schemas.job import JobConfiguration, parse_job
from locex.settings import PluginSettings, SiteSettings
from locex.worker.data import prepare
from locex.worker.plan import make_plan
from locex.worker.preparation import Surroundings
from locex_inference.following.question import Evaluation
from locex_inference.following.scoring import Scorer
from locex_inference.following.verdict import Findings, Report, Tensor
from locex_inference.inferencers.question import Question
from locex_inference.inferencers.served import load
from locex_inference.tensors import DTYPES

if TYPE_CHECKING:
    from locex.api import Array

_BATCH = 64
_SEED = 7
_SAMPLE = 2  # made-up examples, where there are no data
_FREE = 8  # their size along axes that are free


def evaluate(question: Evaluation, catalog: Catalog, site: SiteSettings) -> Report:
    """Return what is to be known of the versions; raise what the candidate cannot be loaded or run for."""
    data, note = _test_data(question, catalog, site)
    with hard_limit(question.memory_mb):
        served = None
        if question.served is not None:
            try:
                served = _findings(question.served, catalog, data)
            except LocexError as error:
                note = note or f"the served version could not be evaluated: {error.message}"
        candidate = _findings(question.candidate, catalog, data)
    return Report(candidate=candidate, served=served, examples=len(data) if data else 0, note=note)


def _test_data(question: Evaluation, catalog: Catalog, site: SiteSettings) -> tuple[Dataset | None, str]:
    """Return some of the test examples as the model takes them, or why there are none."""
    try:
        job = _job(question, site)
        plan = make_plan(job, question.metadata.meta.library, catalog, site, kinds=("data", "transform"))
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


def _job(question: Evaluation, site: SiteSettings) -> JobConfiguration:
    metadata = question.metadata
    content = question.configuration or {
        "server_address": "unused:1",
        "model_name": metadata.model_name,
        "model_version": metadata.model_version,
    }
    return fill_in(parse_job(content)[0], site)[0]


def _findings(version: Question, catalog: Catalog, data: Dataset | None) -> Findings:
    served = load(version, catalog)
    names = [info.name for info in served.model_outputs]
    finite, scorer = True, Scorer()
    for inputs, targets in _batches(served.model_inputs, data):
        outputs = served.run(inputs, names)
        finite = finite and all(np.isfinite(one).all() for one in outputs.values() if one.dtype.kind == "f")
        if targets is not None:
            scorer.take(outputs[names[0]], targets)
    return Findings(
        inputs=[Tensor.of(info) for info in served.model_inputs],
        outputs=[Tensor.of(info) for info in served.model_outputs],
        finite=bool(finite),
        score=scorer.score(),
    )


def _batches(tensors: Sequence[TensorInfo], data: Dataset | None) -> Iterator[tuple[dict[str, Array], Array | None]]:
    """Yield examples for a model of one input, else made-up ones; a fixed first axis is the size of a batch."""
    first = tensors[0]
    if data is None or len(tensors) > 1:
        yield {info.name: _made_up(info.shape, info.datatype) for info in tensors}, None
        return
    fixed = first.shape[0] if first.shape and first.shape[0] > 0 else None
    size = fixed or _BATCH
    for begin in range(0, len(data) - (size - 1 if fixed else 0), size):
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
        report = evaluate(Evaluation.model_validate(content), catalog, site)
        channel.send({"answer": report.model_dump(mode="json")})
    except LocexError as error:
        channel.send({"error": error.to_json()})
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 -- an inferencer may raise anything
        channel.send({"error": LocexError(f"{type(error).__name__}: {error}", code="inference-failed").to_json()})


if __name__ == "__main__":
    main()
