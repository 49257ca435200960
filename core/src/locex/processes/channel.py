"""The child's end of the JSON lines that `locex.processes.child` speaks."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any, NoReturn


class Channel:
    """Messages over the original standard input and output.

    After `take`, whatever prints to standard output goes to standard error, so that a plugin that prints cannot break
    a message, and whatever reads standard input reads nothing.
    """

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = threading.Lock()

    @classmethod
    def take(cls) -> Channel:
        """Take standard input and output of this process for messages; once per process."""
        sys.stdout.flush()
        reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # what is printed must not be lost with a killed process
        return cls(reader, writer)

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one message; safe from any thread. A parent that is gone is noticed by `receive`."""
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            try:
                self._writer.write(line)
                self._writer.flush()
            except (BrokenPipeError, ValueError):
                pass

    def end_with_parent(self) -> None:
        """End this process when the parent is gone, whatever it is doing; nothing is received any more."""

        def watch() -> None:
            while self._reader.readline():
                pass
            end_group()

        threading.Thread(target=watch, name="parent", daemon=True).start()

    def receive(self) -> dict[str, Any] | None:
        """Return the next message, or None when the parent is gone."""
        line = self._reader.readline()
        message = json.loads(line) if line else None
        return message if isinstance(message, dict) else None


def end_group() -> NoReturn:
    """Kill this process with its whole group, if it leads one: a shell that called it by hand is spared."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
