"""The state of the data folder, as cheap to ask as one look at it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Hashable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)
_PAUSE = 5.0  # seconds until a folder that cannot be watched is tried again
_GATHER = 50  # milliseconds in which changes count as one
_TICK = 1000  # milliseconds without a change after which the watch answers


class DataFolder:
    """Tells changes at any depth, where the system can watch; those at the top level always, by looking.

    Watching begins when the state is first asked for: a service that nobody asks pays nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changes = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    async def state(self) -> Hashable:
        """Return what differs after a change."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="data folder", daemon=True)
            self._thread.start()
        return self._changes, await asyncio.to_thread(_top_level, self._folder)

    async def close(self) -> None:
        """Watch no longer."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _watch(self) -> None:
        while not self._stop.is_set():
            begun = False
            try:
                for changed in self._watched():
                    if changed or not begun:  # what came before the watch had begun counts as a change, too
                        self._changes += 1
                    begun = True
            except (OSError, RuntimeError) as error:  # not there yet, or more folders than the system watches
                log.debug("%s cannot be watched: %s", self._folder, error)
                self._changes += 1
                self._stop.wait(_PAUSE)

    def _watched(self) -> Iterator[bool]:
        """Yield, at every change and every tick, whether something changed; the first time once the watch stands."""
        from watchfiles import watch  # not `awatch`, whose anyio takes memory too

        changes = watch(
            self._folder,
            watch_filter=None,
            debounce=_GATHER,
            step=_GATHER,
            stop_event=self._stop,
            rust_timeout=_TICK,
            yield_on_timeout=True,
        )
        yield from map(bool, changes)


def _top_level(folder: Path) -> Hashable:
    """Return names, times and sizes of what lies in the folder itself; folders count by their own time."""
    try:
        entries = sorted(folder.iterdir())
        return tuple((entry.name, entry.stat().st_mtime_ns, entry.stat().st_size) for entry in entries)
    except OSError:
        return ()
