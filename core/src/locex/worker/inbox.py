"""The service's messages, read in a thread so that a stop is seen whatever the worker is doing."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TypeVar

from pydantic import BaseModel

from locex.jobs.messages import Heartbeat, Stop, ToWorker, Warned, as_json, to_worker
from locex.processes.channel import Channel, end_group

log = logging.getLogger(__name__)
_HEARTBEAT = 2.0  # seconds

MessageT = TypeVar("MessageT", bound=BaseModel)


class Inbox:
    """Reads commands until the process ends, and sends heartbeats; ends the whole group when the service is gone."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._queue: queue.Queue[ToWorker] = queue.Queue()
        self._stop = threading.Event()
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def beat(self) -> None:
        """From now on send heartbeats; before, nobody reads them and they would pile up at the service."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def send(self, message: BaseModel) -> None:
        """Send a message to the service."""
        self._channel.send(as_json(message))

    def warn(self, text: str) -> None:
        """Put a sentence among the warnings of the job's record."""
        self.send(Warned(text=text))

    def next(self, kind: type[MessageT]) -> MessageT:
        """Wait for the next message, which must be of this kind."""
        message = self._queue.get()
        if not isinstance(message, kind):
            raise TypeError(f"the service sent {message.kind}, expected {kind.__name__}")
        return message

    def stopping(self) -> bool:
        """Return whether the service asked the job to stop."""
        return self._stop.is_set()

    def _read(self) -> None:
        try:
            while (content := self._channel.receive()) is not None:
                message = to_worker(content)
                if isinstance(message, Stop):
                    self._stop.set()
                else:
                    self._queue.put(message)
        except Exception:  # of another version than ours; without this thread nobody would notice its end
            log.exception("a message of the service cannot be read")
        finally:
            end_group()

    def _beat(self) -> None:
        while True:
            time.sleep(_HEARTBEAT)
            self.send(Heartbeat())
