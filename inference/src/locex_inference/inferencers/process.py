"""``python -m locex_inference.inferencers.process``: a process that holds one version of one model.

It is told what to load, answers with the model's tensors or an error, and then runs calls until its parent is gone.
Control is JSON lines; arrays lie in shared memory that the parent made.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from locex.errors import LocexError
from locex.plugins.catalog import read_catalog
from locex.processes.channel import Channel, end_group
from locex.processes.memory import hard_limit
from locex.settings import PluginSettings
from locex_inference.inferencers.arrays import BorrowedBuffer
from locex_inference.inferencers.question import Question
from locex_inference.inferencers.served import Served, load

if TYPE_CHECKING:
    from locex.api import Array

_OUT_OF_MEMORY = "out-of-memory"


class Calls:
    """Runs calls, as many at once as there are pairs of buffers."""

    def __init__(self, channel: Channel, served: Served, buffers: list[tuple[int, int]]) -> None:
        self._channel = channel
        self._served = served
        self._inputs = [BorrowedBuffer(inputs) for inputs, _ in buffers]
        self._outputs = [BorrowedBuffer(outputs) for _, outputs in buffers]
        self._waiting: dict[int, dict[str, Array]] = {}
        self._threads = ThreadPoolExecutor(max(1, len(buffers)), thread_name_prefix="call")

    def serve(self) -> None:
        """Take calls until the parent is gone."""
        while (message := self._channel.receive()) is not None:
            self._threads.submit(self._take, message)

    def _take(self, message: dict[str, Any]) -> None:
        try:
            answer = self._answer(message)
        except LocexError as error:
            answer = {"error": error.to_json()}
        except MemoryError:
            answer = {"error": out_of_memory("a call").to_json()}
        except BaseException as error:  # noqa: BLE001 -- a thread's exception would be kept, and the caller wait
            answer = {"error": LocexError(f"{type(error).__name__}: {error}", code="inference-failed").to_json()}
        self._channel.send({"id": message["id"], **answer})

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return where the outputs lie; with too little room, keep them until there is more."""
        made = self._waiting.pop(message["id"], None)
        if made is None:
            inputs = self._inputs[message["slot"]].read(message["inputs"], message["size"])
            run = self._served.run if message["bare"] else self._served.answer
            made = run(inputs, message["outputs"])
        described, needed = self._outputs[message["slot"]].write(made, message["room"])
        if needed > message["room"]:
            self._waiting[message["id"]] = made
            return {"needed": needed}
        return {"outputs": described}


def out_of_memory(what: str) -> LocexError:
    """Return the error for a lack of memory."""
    return LocexError(
        f"{what} takes more memory than the model's process may have",
        remedy="raise memory_mb of the model, or LOCEX_MODEL_MEMORY_MB",
        code=_OUT_OF_MEMORY,
    )


def told(served: Served) -> dict[str, Any]:
    """Return what the parent is told of a loaded version."""
    return {
        "inferencer": served.inferencer_name,
        "platform": served.platform,
        "digest": served.digest,
        "pipelines": served.preprocess is not None or served.postprocess is not None,
        "inputs": [asdict(info) for info in served.inputs],
        "outputs": [asdict(info) for info in served.outputs],
        "model_inputs": [asdict(info) for info in served.model_inputs],
        "model_outputs": [asdict(info) for info in served.model_outputs],
    }


def main() -> None:
    """Load what is asked for, and serve it."""
    channel = Channel.take()
    message = channel.receive()
    if message is None:
        return
    question = Question.model_validate(message)
    settings = PluginSettings()
    sys.path.extend(map(str, settings.plugin_folders))
    with hard_limit(question.memory_mb):
        try:
            served = load(question, read_catalog(settings.policy, settings.plugin_folders))
        except LocexError as error:
            channel.send({"error": error.to_json()})
            return
        except MemoryError:
            channel.send({"error": out_of_memory("the model").to_json()})
            return
        channel.send({"loaded": told(served)})
        Calls(channel, served, question.buffers).serve()
    end_group()


if __name__ == "__main__":
    main()
