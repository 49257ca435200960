"""From an artefact to a version that is served: tried in a process of its own, loaded, verified, published."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from locex.errors import InvalidModel, LocexError, StoreUnavailable
from locex.pipelines.saved import SavedPipeline
from locex.plugins.catalog import Catalog, read_catalog
from locex.plugins.host import Host
from locex.scratch import scratch
from locex_inference.inferencers.choice import choose
from locex_inference.inferencers.question import Question
from locex_inference.inferencers.remote import RemoteModel, Terms
from locex_inference.inferencers.served import Served, digest_of, load
from locex_inference.models.golden import Golden, read_golden
from locex_inference.models.options import ModelOptions
from locex_inference.models.registry import Registry
from locex_inference.models.repository import artefact_in, pipeline_in, safe_name, safe_path
from locex_inference.models.verification import Findings, Subject, verify
from locex_inference.models.version import ModelVersion
from locex_inference.pipelines.making import step_names
from locex_inference.serving import Statistics

ResultT = TypeVar("ResultT")
_NICE = 19
_NICE_TRIAL = 10  # a whole process with its imports: at 19 a busy machine would keep a swap waiting for half a minute


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a site loads models.

    ``in_process`` names the inferencers, ``steps_in_process`` the transformations that may run in the service's own
    process; all others have processes of their own, of ``memory_mb`` each. ``threads`` are those of one call.
    ``folder`` keeps artefacts that arrive as bytes.
    """

    in_process: frozenset[str] = frozenset({"onnx"})
    steps_in_process: frozenset[str] = frozenset()
    threads: int = 1
    memory_mb: int | None = 2048
    allow_programs: bool = True
    folder: Path | None = None
    terms: Terms = field(default_factory=Terms)
    catalog: Callable[[], Catalog] = read_catalog


@dataclass(frozen=True, slots=True)
class _Task:
    """What one load has to go by."""

    question: Question
    golden: Golden | None
    remain: bool
    """Whether the process that the version is tried in goes on to serve it."""


class Loader:
    """Loads versions one after the other, in one thread of low priority; belongs to the event loop."""

    def __init__(self, registry: Registry, conditions: Conditions | None = None) -> None:
        self.registry = registry
        self.conditions = conditions or Conditions()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader", initializer=_be_nice)
        self._turn = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    async def load(
        self,
        model: str,
        version: str,
        source: Path | Mapping[str, bytes],
        options: ModelOptions | None = None,
        *,
        digest: str = "",
        library: str = "",
        pipeline: SavedPipeline | None = None,
        promote: bool | None = None,
    ) -> ModelVersion:
        """Load a version and serve it; return it when it is served.

        ``source`` is the artefact's file, a version's folder, or the files of one by name. A file or folder must stay
        as long as the version is served. ``digest`` is the artefact's sha256 where it is known. A version of that name
        that is served is replaced, without a request lost. Raise what is wrong, which the index shows too; whatever
        was served before goes on.
        """
        model, version = safe_name(model), safe_name(version)
        options = options or ModelOptions()
        self.registry.note(model, version, "LOADING")
        try:
            async with self._turn:
                made = await self._made(model, version, source, options, digest, library, pipeline)
        except LocexError as error:
            self.registry.note(model, version, "UNAVAILABLE", error.message)
            raise
        except BaseException:
            self.registry.note(model, version, "UNAVAILABLE", "loading was given up")
            raise
        replaced = self.registry.publish(made, promote=promote)
        self._name(model, options)
        for old in [*([replaced] if replaced else []), *self.registry.superfluous(model)]:
            self.retire(old, f"version {version!r} took its place")
        return made

    def retire(self, version: ModelVersion, reason: str) -> None:
        """Serve a version no longer; it is closed, in the background, when its requests are answered."""
        task = asyncio.create_task(self.registry.retire(version, reason))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """Close every version, and end the thread; requests under way are answered first."""
        for model in self.registry.models():
            for version in self.registry.versions(model):
                self.retire(version, "the service ends")
        while self._retiring:
            await asyncio.wait(self._retiring)
        self._thread.shutdown()

    # --- one load -----------------------------------------------------------------------------------------------------

    async def _made(
        self,
        model: str,
        version: str,
        source: Path | Mapping[str, bytes],
        options: ModelOptions,
        digest: str,
        library: str,
        pipeline: SavedPipeline | None,
    ) -> ModelVersion:
        kept = ExitStack()
        try:
            if isinstance(source, Mapping):
                place = await self._in_thread(_write, source, self.conditions.folder, kept)
            else:
                place = Path(str(source))
            task = await self._in_thread(self._task, model, version, place, options, digest, library, pipeline)
            made = await self._tried(task)
        except BaseException:
            await self._in_thread(kept.close)  # after what the one thread may still be writing for a caller who is gone
            raise
        made.release = kept.close
        return made

    def _task(
        self,
        model: str,
        version: str,
        place: Path,
        options: ModelOptions,
        digest: str,
        library: str,
        pipeline: SavedPipeline | None,
    ) -> _Task:
        """Return what is to be loaded, with its digest verified."""
        beside = place if place.is_dir() else None
        artefact = artefact_in(place) if beside else place
        try:
            found = digest_of(artefact)
        except OSError as error:
            raise InvalidModel(f"the artefact {artefact.name!r} cannot be read: {error.strerror}") from None
        if digest and found != digest:
            raise InvalidModel(
                f"the artefact of {model!r} version {version!r} has the sha256 {found}, not {digest}",
                remedy="fetch it again",
            )
        pipeline = pipeline or (pipeline_in(beside) if beside else None)
        question = Question(
            artefact=artefact.resolve(),
            digest=found,
            name=model,
            version=version,
            library=library,
            options=options,
            pipeline=pipeline,
            threads=options.threads or self.conditions.threads,
            allow_programs=self.conditions.allow_programs,
            memory_mb=options.memory_mb or self.conditions.memory_mb,
        )
        remain = options.isolate or not self._may_run_here(question)
        if not remain:
            question = question.model_copy(update={"nice": _NICE_TRIAL})
        return _Task(question, read_golden(beside) if beside else None, remain)

    def _may_run_here(self, question: Question) -> bool:
        """Return whether operator and options let the version run in this process, and its cost is bounded.

        Nobody can stop a call that runs here, nor its memory: what a request's values can make endless stays outside.
        """
        if not step_names(question.options, question.pipeline) <= self.conditions.steps_in_process:
            return False
        catalog, named = self.conditions.catalog(), question.options.inferencer
        chosen = choose(Host(), catalog, question.artefact, named, self.conditions.in_process)
        if chosen is None:
            return False
        bounded = getattr(chosen.instance, "bounded", None)
        return bounded is None or bool(bounded(question.artefact))

    async def _tried(self, task: _Task) -> ModelVersion:
        """Load and verify in another process first: what crashes or runs out of memory there does no harm here."""
        options = task.question.options
        calls = (options.concurrency or 1) if task.remain else 1
        remote = RemoteModel(task.question, self.conditions.terms, calls)
        try:
            await remote.start()
            findings = await self._in_thread(verify, _beyond(remote), options, task.golden)
        except BaseException:
            await remote.aclose()
            raise
        if task.remain:
            return _version(task, remote, remote.loaded["platform"], remote.loaded["digest"], findings)
        await remote.aclose()
        served, findings = await self._in_thread(self._here, task)
        made = _version(task, served.inferencer, served.platform, served.digest, findings)
        return replace(
            made,
            inputs=served.inputs,
            outputs=served.outputs,
            in_process=True,
            preprocess=served.preprocess,
            postprocess=served.postprocess,
        )

    def _here(self, task: _Task) -> tuple[Served, Findings]:
        served = load(task.question, self.conditions.catalog(), self.conditions.in_process)
        try:
            return served, verify(_within(served), task.question.options, task.golden)
        except BaseException:
            served.inferencer.close()
            raise

    def _name(self, model: str, options: ModelOptions) -> None:
        """Give the versions that are loaded the labels and parts that the options say."""
        loaded = {version.version for version in self.registry.versions(model)}
        if options.labels:
            self.registry.set_labels(model, {name: one for name, one in options.labels.items() if one in loaded})
        if options.canary:
            self.registry.set_weights(model, {name: part for name, part in options.canary.items() if name in loaded})

    async def _in_thread(self, call: Callable[..., ResultT], *arguments: Any) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)


def _version(task: _Task, inferencer: Any, platform: str, digest: str, findings: Findings) -> ModelVersion:
    question = task.question
    return ModelVersion(
        name=question.name,
        version=question.version,
        digest=digest,
        platform=platform,
        inputs=inferencer.inputs,
        outputs=inferencer.outputs,
        inferencer=inferencer,
        options=question.options,
        statistics=Statistics(question.name, question.version),
        in_process=False,
        costs=findings.costs,
        batching=findings.batching,
    )


def _within(served: Served) -> Subject:
    return Subject(served.inputs, served.outputs, served.model_inputs, served.model_outputs, served.run, served.answer)


def _beyond(remote: RemoteModel) -> Subject:
    def bare(inputs: Any, outputs: Any) -> Any:
        return remote.run(inputs, outputs, bare=True)

    return Subject(
        remote.inputs,
        remote.outputs,
        remote.model_inputs,
        remote.model_outputs,
        bare,
        remote.run,
        may_batch=not remote.loaded["pipelines"],
    )


def _write(files: Mapping[str, bytes], within: Path | None, kept: ExitStack) -> Path:
    """Write a version's files into a folder of their own, which goes when ``kept`` is closed, and return it.

    Folders that a service left behind when it was killed go too.
    """
    if not files:
        raise InvalidModel("no file of the model came", remedy="send its file, e.g. file:1/model.onnx")
    places = {safe_path(name): content for name, content in files.items()}
    root = within or Path(tempfile.gettempdir())
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = kept.enter_context(scratch(root, "model-"))
        _put(folder, places)
    except OSError as error:
        raise StoreUnavailable(
            f"the files of the model cannot be kept: {error.strerror}", remedy="make room in the state folder"
        ) from error
    return folder


def _put(folder: Path, places: Mapping[tuple[str, ...], bytes]) -> None:
    try:
        for parts, content in places.items():
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise InvalidModel("a file of the model has the path of a folder of others") from None


def _be_nice() -> None:
    """Give way to the threads that serve: Linux has priorities by thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
