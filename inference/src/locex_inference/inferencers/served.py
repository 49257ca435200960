"""A version loaded in this process, whichever it is: the inferencer with its pipelines."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from locex.api import Inferencer, InferencerContext, TensorInfo
from locex.artefacts.formats import format_of
from locex.errors import InvalidModel, LocexError
from locex.plugins.catalog import Catalog
from locex.plugins.host import Host
from locex_inference.errors import ModelFailed
from locex_inference.inferencers.choice import choose
from locex_inference.inferencers.onnx_file import companions
from locex_inference.inferencers.question import Question
from locex_inference.models.version import Pipeline
from locex_inference.pipelines.making import Maker
from locex_inference.tensors import DTYPES

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from locex.api import Array


@dataclass(frozen=True, slots=True)
class Served:
    """An inferencer with its pipelines. ``inputs`` and ``outputs`` are what callers see, ``model_inputs`` the model's.

    ``digest`` is the sha256 of the artefact, or of it and the files with weights beside it.
    """

    inferencer: Inferencer
    inferencer_name: str
    platform: str
    digest: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    preprocess: Pipeline | None
    postprocess: Pipeline | None

    @property
    def model_inputs(self) -> tuple[TensorInfo, ...]:
        """What the model itself takes."""
        return self.inferencer.inputs

    @property
    def model_outputs(self) -> tuple[TensorInfo, ...]:
        """What the model itself gives."""
        return self.inferencer.outputs

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the model's outputs, without pipelines; raise `ModelFailed` for whatever it raises."""
        try:
            return self.inferencer.run(inputs, outputs)
        except (LocexError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise ModelFailed(f"the model raised {type(error).__name__}: {str(error)[:1000]}") from error

    def answer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs as callers see them."""
        values: dict[str, Any] = {}
        tensors = dict(inputs)
        if self.preprocess is not None:
            tensors = self.preprocess(tensors, values)
        made = self.run(tensors, outputs)
        return made if self.postprocess is None else self.postprocess(made, values)


def load(question: Question, catalog: Catalog, among: Collection[str] | None = None) -> Served:
    """Load a version with the inferencer that takes it, one ``among`` these; raise the error that the user is to see.

    Reads the artefact twice: its digest is verified before anything parses it.
    """
    if digest_of(question.artefact) != question.digest:
        raise InvalidModel(
            f"the artefact of {question.name!r} version {question.version!r} is not the one that was named: "
            f"its sha256 is {digest_of(question.artefact)}, not {question.digest}",
            remedy="fetch it again",
        )
    host = Host()
    chosen = choose(host, catalog, question.artefact, question.options.inferencer, among)
    if chosen is None:
        raise InvalidModel("the artefact is of no inferencer that may run here", remedy="let it have its own process")
    configured = host.configure(chosen, question.options.fields, at="/fields")
    try:
        context = _context(question, host, catalog)
        inferencer = host.inferencer(configured, context)
        _check_tensors(inferencer)
        made = Maker(host, catalog, question.options, question.pipeline).pipelines(
            inferencer.inputs, inferencer.outputs
        )
    except (LocexError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise InvalidModel(
            f"the inferencer {chosen.entry.name!r} cannot load the model: {type(error).__name__}: {str(error)[:1000]}",
            remedy="check the artefact with the library that it is of",
        ) from error
    return Served(
        inferencer=inferencer,
        inferencer_name=chosen.entry.name,
        platform=str(getattr(chosen.instance, "platform", chosen.entry.name)),
        digest=_identity(question),
        inputs=made.inputs,
        outputs=made.outputs,
        preprocess=made.before,
        postprocess=made.after,
    )


def _context(question: Question, host: Host, catalog: Catalog) -> InferencerContext:
    with question.artefact.open("rb") as file:
        library = (format_of(file) or "").partition("/")[2]

    def architecture(name: str, fields: Mapping[str, Any], seed: int | None) -> Any:
        loaded = host.load(catalog.find("architecture", name, library=library))
        return host.architecture(host.configure(loaded, fields), seed or 0)

    return InferencerContext(
        artefact=question.model_artefact(),
        threads=question.threads,
        allow_programs=question.allow_programs,
        architecture=architecture,
        warn=lambda text: log.warning("%s version %s: %s", question.name, question.version, text),
    )


def digest_of(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _identity(question: Question) -> str:
    """Return one digest of all the files with weights; the artefact's own where there are no others."""
    if question.artefact.suffix != ".onnx" or not (beside := companions(question.artefact)):
        return question.digest
    together = hashlib.sha256(question.digest.encode())
    for path in beside:
        together.update(f"\n{path.name} {digest_of(path)}".encode())
    return together.hexdigest()


def _check_tensors(inferencer: Inferencer) -> None:
    """Raise `InvalidModel` for tensors that the protocol cannot carry."""
    for info in (*inferencer.inputs, *inferencer.outputs):
        if info.datatype not in DTYPES:
            raise InvalidModel(f"the model's {info.name!r} has the type {info.datatype}, which the protocol has not")
    if not inferencer.outputs:
        raise InvalidModel("the model gives nothing", remedy="export it with its outputs")
