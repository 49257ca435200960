"""``locex demo``: the main job on this machine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("demo-run"), show_default=True, help="Its files."
)
@click.option("--rounds", type=click.IntRange(1, 100), default=6, show_default=True, help="Rounds of the training.")
@click.option("--federation", default="flower-grpc", show_default=True, help="flower-grpc or flower-superlink.")
def demo(folder: Path, rounds: int, federation: str) -> None:
    """Train a CNN on two nodes with different halves of MNIST, over REST.

    Starts a Training Collector and two services, shows their progress, and leaves the model in the folder.
    """
    from locex_server.demo.run import GOAL, run

    try:
        accuracy = asyncio.run(_ended_by_signals(run(folder, rounds, federation)))
    except asyncio.CancelledError:
        raise click.Abort from None
    if rounds >= 6 and accuracy < GOAL:  # noqa: PLR2004 -- fewer rounds are for trying things out
        raise click.ClickException(f"the global accuracy is {accuracy:.4f}, expected were {GOAL}")


async def _ended_by_signals(work: Coroutine[Any, Any, float]) -> float:
    """Cancel the work at the first signal; further ones must not disturb it while it ends its processes."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task.cancelling() or task.cancel())
    return await task
