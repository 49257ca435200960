"""``python -m locex.worker``: one worker, spoken to over standard input and output."""

from __future__ import annotations

import logging
import os
import sys

from locex.processes.channel import Channel
from locex.settings import PluginSettings


def main() -> None:
    """Take the channel before anything can print, then work."""
    channel = Channel.take()
    logging.basicConfig(level=os.environ.get("LOCEX_LOG_LEVEL", "INFO"), format="%(levelname)s %(name)s: %(message)s")
    sys.path.extend(str(folder) for folder in PluginSettings().plugin_folders)
    from locex.worker.inbox import Inbox
    from locex.worker.process import work

    work(Inbox(channel))


if __name__ == "__main__":
    main()
