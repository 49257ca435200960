"""The demo from its beginning to its end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from locex.cli.client import Client
from locex_server.demo.data import write_shares
from locex_server.demo.display import NodeView, progress, shares, summary
from locex_server.demo.prediction import Prediction, predict
from locex_server.demo.services import free_port, service

GOAL = 0.93
_MODEL, _VERSION, _TRAINING = "mnist-cnn", "1", "demo"
_MANIFEST = {
    "format": "architecture",
    "library": "pytorch",
    "architecture": "cnn",
    "config": {"input_size": [1, 28, 28], "channels": [16, 32], "hidden": 64, "num_classes": 10},
    "seed": 1,
}


@dataclass(frozen=True)
class Federation:
    """The running services."""

    collector: Client
    nodes: list[Client]
    server_address: str
    inference: str = ""
    """The host and port of the inference service beside the first node."""


async def run(folder: Path, rounds: int, federation: str) -> float:
    """Run the demo; return the global accuracy."""
    console = Console()
    await asyncio.to_thread(_empty, folder)
    folders = [folder / f"node{number}" for number in (1, 2)]
    counts = await asyncio.to_thread(write_shares, [place / "data" for place in folders])
    views = [NodeView(place.name, share) for place, share in zip(folders, counts, strict=True)]
    console.print(shares(views))
    console.print("starting a collector and two nodes, each a process with its own port and data …")
    async with _services(folder, folders) as running:
        began = time.monotonic()
        await _post(running, rounds, federation)
        with Live(progress(views, rounds), console=console, refresh_per_second=8) as live:

            async def follow(client: Client, view: NodeView) -> None:
                async for kind, content in client.events(f"job/{_TRAINING}/events"):
                    view.take(kind, content)
                    live.update(progress(views, rounds))
                await _require_finished(client)  # at once, not when the other node has waited in vain

            await asyncio.gather(*map(follow, running.nodes, views))
        seconds = time.monotonic() - began
        model = folder / "model.zip"
        model.write_bytes(await _download(running.nodes[0]))
        accuracy = _global_accuracy(views, folders)
        console.print(summary(views, accuracy, str(model), seconds))
        console.print("the first node serves the model; tritonclient asks it about a test image …")
        trained = (await running.nodes[0].call("GET", f"job/{_TRAINING}"))["model"]["model_version"]
        _show(console, await predict(running.inference, _MODEL, trained, folders[0] / "data"))
    _print_next(console, folder)
    return accuracy


@asynccontextmanager
async def _services(folder: Path, folders: list[Path]) -> AsyncIterator[Federation]:
    async with AsyncExitStack() as stack:
        flower_port, inference_port = free_port(), free_port()
        collector = await stack.enter_async_context(
            service("collector", "collector", "serve", port=free_port(), folder=folder / "collector", environment={})
        )
        try:
            async with asyncio.TaskGroup() as starting:  # at the same time: each takes most of a second
                nodes = [
                    starting.create_task(stack.enter_async_context(_node(place, collector, port)))
                    for place, port in zip(folders, (inference_port, None), strict=True)
                ]
        except* click.ClickException as failures:
            raise failures.exceptions[0] from None
        urls = [collector, *(node.result() for node in nodes)]
        clients = [await stack.enter_async_context(Client(url)) for url in urls]
        yield Federation(clients[0], clients[1:], f"127.0.0.1:{flower_port}", f"127.0.0.1:{inference_port}")


@asynccontextmanager
async def _node(folder: Path, collector: str, inference_port: int | None) -> AsyncIterator[str]:
    """Run a node, one with a port for inference with that service beside it."""
    environment = {"DATA_FOLDER": str(folder / "data"), "REPOSITORY_ADDRESS": collector, "LOCEX_THREADS": "1"}
    if inference_port is not None:
        environment |= {
            "LOCEX_INFERENCE": "1",
            "LOCEX_INFERENCE_PORT": str(inference_port),
            "LOCEX_GRPC_PORT": "0",
            "LOCEX_FOLLOW_INTERVAL": "0.5",
            "LOCEX_FOLLOW_PIPELINE": "1",
        }
    async with service("service", "serve", port=free_port(), folder=folder, environment=environment) as url:
        yield url


async def _post(running: Federation, rounds: int, federation: str) -> None:
    metadata = {"model_name": _MODEL, "model_version": _VERSION, "meta": {"library": "pytorch"}}
    await running.collector.call("POST", "model/", json=metadata)
    await running.collector.call("PUT", f"model/{_MODEL}/{_VERSION}", data=_artefact())
    await running.collector.call("POST", f"job/config/{_TRAINING}/", json=_training(running, rounds, federation))
    job = _job(running, rounds, federation)
    for node, formats in zip(running.nodes, (["onnx"], []), strict=True):  # the first one serves the model
        await node.call("POST", f"job/config/{_TRAINING}/", json=job | {"export": {"formats": formats}})


def _training(running: Federation, rounds: int, federation: str) -> dict[str, Any]:
    return {
        "strategy": "fedavg",
        "model_name": _MODEL,
        "model_version": _VERSION,
        "federation": federation,
        "port": int(running.server_address.rpartition(":")[2]),
        "server_conf": {"num_rounds": rounds, "round_timeout": 120},
        "strategy_conf": {"min_fit_clients": 2, "min_evaluate_clients": 2, "min_available_clients": 2},
    }


def _job(running: Federation, rounds: int, federation: str) -> dict[str, Any]:
    pipeline = [
        {"id": "expansion", "parameters": {"axis": 0}},
        {"id": "basic_norm", "parameters": {"mean": 33.3, "std": 78.6}},
    ]
    return {
        "server_address": running.server_address,
        "federation": federation,
        "model_name": _MODEL,
        "model_version": _VERSION,
        "num_rounds": rounds,
        "num_classes": 10,
        "shape": [28, 28],
        "eval_func": "categorical_crossentropy",
        "eval_metrics": ["accuracy"],
        "config": [{"batch_size": 32, "epochs": 2}],
        "optimizer_config": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9},
        "transformations": {"train": pipeline, "test": pipeline},
        "privacy-mechanisms": {},
    }


def _artefact() -> bytes:
    from io import BytesIO

    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("manifest.json", json.dumps(_MANIFEST))
    return content.getvalue()


async def _require_finished(node: Client) -> None:
    record = await node.call("GET", f"job/{_TRAINING}")
    if record["state"] != "FINISHED":
        reason = (record["failure"] or {}).get("message", "")
        raise click.ClickException(f"the job of {node.url} ended {record['state']}: {reason}")


def _empty(folder: Path) -> None:
    """Make the folder new; refuse one that holds anything but a former demo."""
    marker = folder / ".locex-demo"
    if folder.exists() and not marker.exists() and any(folder.iterdir()):
        raise click.ClickException(f"{folder} is not empty and not a former demo's: name another --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.touch()


async def _download(node: Client) -> bytes:
    async with node.session.get(f"job/{_TRAINING}/model") as response:
        response.raise_for_status()
        return await response.read()


def _global_accuracy(views: list[NodeView], folders: list[Path]) -> float:
    """Return the share of all test images of both nodes that the final global model gets right."""
    import numpy as np

    sizes = [len(np.load(folder / "data" / "y_test.npy")) for folder in folders]
    hits = [view.evaluation["accuracy"] * size for view, size in zip(views, sizes, strict=True)]
    return sum(hits) / sum(sizes)


def _show(console: Console, made: Prediction) -> None:
    for row in made.image[::2]:  # a character is twice as high as wide
        console.print("  " + "".join(" .:-=+*#%@"[value * 10 // 256] for value in row), markup=False, highlight=False)
    right = "" if made.digit == made.label else f", it is a {made.label}"
    console.print(
        f"  {made.model} version {made.version} says: [bold]{made.digit}[/bold]"
        f" ({made.probability:.1%}, in {made.milliseconds:.1f} ms{right})"
    )


def _print_next(console: Console, folder: Path) -> None:
    console.print("\n[bold]next[/bold]")
    # ./demo runs in an environment that its caller's shell does not know
    locex = "locex" if shutil.which("locex") else os.path.relpath(Path(sys.executable).with_name("locex"))
    for command, why in (
        (f"{locex} plugins list", "what is installed"),
        (f"{locex} serve --data {folder}/node1/data --state {folder}/node1/state", "one node by itself"),
        (f"{locex} job status demo", "in a second terminal: the job that was trained"),
        ("http://127.0.0.1:9050/docs", "in a browser: its API"),
    ):
        console.print(f"  {command}", soft_wrap=True, highlight=False, end="")
        console.print(f"   [dim]# {why}[/dim]", soft_wrap=True)
