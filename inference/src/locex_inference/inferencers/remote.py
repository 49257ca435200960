"""A version in a process of its own, from the service's end: started, called, and started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from locex.api import TensorInfo
from locex.errors import LocexError
from locex.processes.answers import answer_of
from locex.processes.child import Child
from locex.settings import WITHHELD
from locex_inference import errors
from locex_inference.errors import InferenceError, ModelFailed, NotReady
from locex_inference.inferencers.arrays import SharedBuffer, close_all
from locex_inference.inferencers.question import Question

if TYPE_CHECKING:
    from locex.api import Array

log = logging.getLogger(__name__)
MODULE = "locex_inference.inferencers.process"
_PRELUDE = (
    "import os, runpy, sys; os.nice(int(sys.argv.pop())); "
    f"runpy.run_module({MODULE!r}, run_name='__main__', alter_sys=True)"
)
"""Gives way before anything is imported, which takes longer than many a model's loading."""
_ERRORS = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, InferenceError)
}
_EXIT = 1.0  # seconds
_MOVE = 4 * 2**20  # bytes beyond which arrays are copied in a thread: copying them takes longer than the hand-over


@dataclass(frozen=True, slots=True)
class Terms:
    """How processes of models are run. Times are in seconds, ``arrays`` in bytes; ``interpreter`` None is our own."""

    interpreter: str | None = None
    load_timeout: float = 120
    call_timeout: float = 60
    arrays: int = 256 * 2**20
    backoff: float = 0.5
    backoff_max: float = 30


@dataclass(slots=True)
class Slot:
    """One call's way into the process and back."""

    number: int
    inputs: SharedBuffer
    outputs: SharedBuffer


class RemoteModel:
    """Implements `locex_inference.models.version.RemoteInferencer` over a process. Belongs to one event loop."""

    def __init__(self, question: Question, terms: Terms, calls: int = 1) -> None:
        """Make what is shared with the process, for so many calls at once; `start` starts it."""
        self._terms = terms
        self._slots = [Slot(number, SharedBuffer(terms.arrays), SharedBuffer(terms.arrays)) for number in range(calls)]
        buffers = [(slot.inputs.fd, slot.outputs.fd) for slot in self._slots]
        self._question = question.model_copy(update={"buffers": buffers})
        self._free: asyncio.Queue[Slot] = asyncio.Queue()
        for slot in self._slots:
            self._free.put_nowait(slot)
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._child: Child | None = None
        self._watch: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[dict[str, Array]]] = set()
        self._killed_for = ""
        self.fault = "it is not started"
        self.restarts = 0
        self.loaded: dict[str, Any] = {}

    # --- what the model is --------------------------------------------------------------------------------------------

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What callers see, pipelines included."""
        return self._tensors("inputs")

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What callers see, pipelines included."""
        return self._tensors("outputs")

    @property
    def model_inputs(self) -> tuple[TensorInfo, ...]:
        """What the model itself takes."""
        return self._tensors("model_inputs")

    @property
    def model_outputs(self) -> tuple[TensorInfo, ...]:
        """What the model itself gives."""
        return self._tensors("model_outputs")

    @property
    def pid(self) -> int | None:
        """The process' id, while there is one."""
        return self._child.pid if self._child else None

    def _tensors(self, which: str) -> tuple[TensorInfo, ...]:
        return tuple(
            TensorInfo(str(one["name"]), str(one["datatype"]), tuple(one["shape"])) for one in self.loaded[which]
        )

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the process and wait until it has loaded the model; raise what it refused, or how it ended."""
        await self._begin()
        self._watch = asyncio.create_task(self._keep())

    async def aclose(self) -> None:
        """End the process and give back the memory."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self._end("it was closed")
        if self._calls:
            await asyncio.wait(self._calls)
        for slot in self._slots:
            close_all((slot.inputs, slot.outputs))

    def close(self) -> None:
        """Do what `aclose` does, from another thread than the event loop's."""
        asyncio.run_coroutine_threadsafe(self.aclose(), self._loop).result()

    async def _begin(self) -> None:
        fds = [fd for slot in self._slots for fd in (slot.inputs.fd, slot.outputs.fd)]
        argv = [self._terms.interpreter or sys.executable, "-c", _PRELUDE, str(self._question.nice)]
        child = self._child = await Child.start(argv, environment=WITHHELD, pass_fds=fds)
        what = f"the model {self._question.name!r} version {self._question.version!r}"
        try:
            await child.send(self._question.model_dump(mode="json"))
            loaded = _loaded(await answer_of(child, what, self._terms.load_timeout))
        except BaseException:
            await self._end("it could not be loaded")
            raise
        self.loaded = self.loaded or loaded
        self.fault = ""

    async def _end(self, reason: str) -> None:
        self.fault = self.fault or reason
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            await child.wait()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(ModelFailed(f"{self._whose} process ended: {self.fault}"))

    async def _keep(self) -> None:
        """Read answers; start the process again whenever it ends, later and later."""
        delay = self._terms.backoff
        while True:
            if await self._read():
                delay = self._terms.backoff
            child = self._child
            if child is not None:
                self.fault = self._killed_for or await _how_it_ended(child)
                self._killed_for = ""
            await self._end(self.fault)
            log.warning("%s process is started again in %g s: %s", self._whose, delay, self.fault)
            await asyncio.sleep(delay)
            delay = min(2 * delay, self._terms.backoff_max)
            self.restarts += 1
            try:
                await self._begin()
            except (LocexError, OSError) as error:
                self.fault = f"it cannot be started again: {error}"

    async def _read(self) -> bool:
        """Hand out answers until the process ends; return whether it answered any call."""
        child, answered = self._child, False
        while child is not None and (message := await child.receive()) is not None:
            number = message.get("id")
            future = self._answers.get(number) if isinstance(number, int) else None
            if future is not None and not future.done():
                future.set_result(message)
                answered = answered or "error" not in message
        return answered

    # --- calls --------------------------------------------------------------------------------------------------------

    async def arun(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], *, bare: bool = False
    ) -> dict[str, Array]:
        """Return the outputs; ``bare``: the model's own, without pipelines.

        Raise `ModelFailed` where the process fails, `NotReady` while it is started again. A call whose caller is gone
        keeps its memory until the process answers, or its time is over.
        """
        if self.fault:
            raise NotReady(f"{self._whose} process is started again: {self.fault}", remedy="try again in a while")
        slot = await self._free.get()
        call = self._loop.create_task(self._call(slot, inputs, outputs, bare=bare))
        self._calls.add(call)
        call.add_done_callback(self._forget)
        return await asyncio.shield(call)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str], *, bare: bool = False) -> dict[str, Array]:
        """Do what `arun` does, from another thread than the event loop's."""
        return asyncio.run_coroutine_threadsafe(self.arun(inputs, outputs, bare=bare), self._loop).result()

    def _forget(self, call: asyncio.Task[dict[str, Array]]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # a caller that is gone does not ask

    async def _call(
        self, slot: Slot, inputs: Mapping[str, Array], outputs: Sequence[str], *, bare: bool
    ) -> dict[str, Array]:
        number = next(self._numbers)
        try:
            described = await _moved(_bytes_of(inputs), slot.inputs.write, inputs, "the inputs")
            message = {"slot": slot.number, "inputs": described, "size": slot.inputs.size, "outputs": [*outputs]}
            answer = await self._ask(number, message | {"room": slot.outputs.size, "bare": bare})
            if "needed" in answer:
                slot.outputs.reserve(int(answer["needed"]), "the outputs")
                answer = await self._ask(number, {"slot": slot.number, "room": slot.outputs.size})
            if "error" in answer:
                raise _error(answer["error"])
            found = answer["outputs"]
            made: dict[str, Array] = await _moved(sum(one["bytes"] for one in found), slot.outputs.read, found)
            return made
        finally:
            self._free.put_nowait(slot)

    async def _ask(self, number: int, message: dict[str, Any]) -> dict[str, Any]:
        child = self._child
        if child is None or self.fault:
            raise ModelFailed(f"{self._whose} process ended: {self.fault}")
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._answers[number] = future
        try:
            await child.send({"id": number, **message})
            async with asyncio.timeout(self._terms.call_timeout):
                await future
        except TimeoutError:
            self._killed_for = f"a call took longer than {self._terms.call_timeout:g} s"
            child.kill()
            raise ModelFailed(f"{self._whose} process was ended: {self._killed_for}") from None
        finally:
            del self._answers[number]
        return future.result()

    @property
    def _whose(self) -> str:
        return f"{self._question.name!r} version {self._question.version!r}: the"


def _loaded(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise LocexError.from_json(answer["error"])
    loaded: dict[str, Any] = answer["loaded"]
    return loaded


async def _how_it_ended(child: Child) -> str:
    with contextlib.suppress(TimeoutError):  # one that only closed its output is killed
        async with asyncio.timeout(_EXIT):
            await child.exited()
    child.kill()
    return f"its process ended with exit code {await child.wait()}"


async def _moved(size: int, move: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(move, *arguments) if size > _MOVE else move(*arguments)


def _bytes_of(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _error(content: Mapping[str, Any]) -> InferenceError:
    """Return the error that the process told of, as one of a request."""
    kind = _ERRORS.get(str(content.get("code")), ModelFailed)
    return kind(str(content.get("message", "")), remedy=str(content.get("remedy", "")))
