"""A child process in a process group of its own, spoken to in JSON lines.

The child's standard error is kept, bounded. Not multiprocessing: a pickled function would make the parent import the
child's modules, and pickled exceptions break queues.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

_STDERR_LINE = 2**16  # bytes; a longer one is kept in pieces
_LINE_LIMIT = 16 * 2**20  # bytes; a longer message is a fault of the child's
_TAIL_LINES = 40
_LOG_BYTES = 2**20
_LAST_WORDS = 1.0  # seconds
_POLL = 0.02  # seconds


class Child:
    """A running child; make one with `Child.start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._log: RotatingFileHandler | None = None
        self._ending: asyncio.Task[int] | None = None
        self._stderr = asyncio.create_task(self._keep_stderr())
        self.identity = identity_of(process.pid)

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str | None] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start a program in its own process group; ``environment`` changes ours, None takes a name out of it.

        The file descriptors ``pass_fds`` are open in it under the same numbers.
        """
        merged = {**os.environ, **(environment or {})}
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in merged.items() if value is not None},
            limit=_LINE_LIMIT,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        return cls(process)

    def keep_log(self, path: Path) -> None:
        """From now on, keep standard error in a file too, bounded; what was said so far begins it."""
        self._log = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1, delay=True, encoding="utf-8")
        for line in self._tail:
            self._log.emit(logging.makeLogRecord({"msg": line}))

    @property
    def pid(self) -> int:
        """The child's process id, which is its group's too."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code; negative: ended by that signal; None: still running."""
        return self._process.returncode

    @property
    def log(self) -> str:
        """The last lines of standard error."""
        return "\n".join(self._tail)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Write one message; a child that is gone is noticed by `receive`, not here."""
        assert self._process.stdin is not None
        if self._process.stdin.is_closing():  # uvloop's would raise RuntimeError
            return
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            await self._process.stdin.drain()

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message, or None when the child closed its output. Lines that are no message are logged."""
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:
                self._keep("a message over the limit was dropped")
                continue
            if not line:
                return None
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if isinstance(message, dict):
                return message
            self._keep(line.decode(errors="replace").rstrip())

    async def exited(self) -> int:
        """Wait until the child itself has ended, and return its exit code.

        Not ``Process.wait``: before Python 3.12.5 that waits for the pipes too, which a grandchild may hold.
        """
        while self._process.returncode is None:  # noqa: ASYNC110 -- asyncio tells of the exit in no other way
            await asyncio.sleep(_POLL)
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for the end of the child, end what is left of its group, and return the exit code.

        May be called again, and by several at once: each gets the code.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        return await asyncio.shield(self._ending)

    async def _end(self) -> int:
        code = await self.exited()
        self.kill()
        # A grandchild that escaped the group may hold the pipes open; its words are not worth waiting for.
        readers = [self._stderr, asyncio.create_task(self._drain())]
        await asyncio.wait(readers, timeout=_LAST_WORDS)
        for reader in readers:
            reader.cancel()
        self._process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 -- no public way to close pipes
        if self._log:
            self._log.close()
        return code

    async def _drain(self) -> None:
        """Read what nobody asked for to its end, so that the pipe is closed."""
        assert self._process.stdout is not None
        while await self._process.stdout.read(2**16):
            pass

    async def end(self, grace: float) -> int:
        """Ask the group to end, kill it after ``grace`` seconds, and return the exit code."""
        _signal_group(self.pid, signal.SIGTERM)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.exited(), grace)
        self.kill()
        return await self.wait()

    def kill(self) -> None:
        """Kill the whole process group at once, but no later process that was given the same id."""
        if self.exit_code is None or identity_of(self.pid) is None:
            _signal_group(self.pid, signal.SIGKILL)

    async def _keep_stderr(self) -> None:
        assert self._process.stderr is not None
        rest = b""
        while chunk := await self._process.stderr.read(_STDERR_LINE):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) >= _STDERR_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._keep(line.decode(errors="replace").rstrip())
        if rest:
            self._keep(rest.decode(errors="replace"))

    def _keep(self, line: str) -> None:
        self._tail.append(line[:2000])
        if self._log:
            self._log.emit(logging.makeLogRecord({"msg": line}))


def python(module: str, *arguments: str, interpreter: str | None = None) -> list[str]:
    """Return the argv that runs a module; the interpreter is ours unless another is named."""
    return [interpreter or sys.executable, "-m", module, *arguments]


def identity_of(pid: int) -> str | None:
    """Return what tells a process from a later one of the same pid: boot id and start time; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, IndexError):
        return None
    return f"{boot}:{fields[19]}"


def reap(pid: int, identity: str | None) -> bool:
    """Kill the group of a child that a former service left, if it still is that very process; tell whether it was."""
    if identity is None or identity_of(pid) != identity:
        return False
    _signal_group(pid, signal.SIGKILL)
    return True


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
