"""A round of `secagg` against a plain one, over `flower-superlink`, in one run.

    python benchmarks/secagg.py [--quick] [--nodes 3] [--parameters 100000]

The server is the collector's training process, the nodes are processes with a model of NumPy that adds one to every
parameter, so that a round is exchange and cryptography alone. Plain and secure trainings alternate; the first round of
each is left out, since it pays imports and registration. Nothing is evaluated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from processes import Bench, free_port, kill

from locex.processes.child import Child, python

if TYPE_CHECKING:
    from locex.api import Evaluation, Incoming, Scalar, Update


class Node:
    """A participant without a model; ``mechanism`` masks, where there is one."""

    rounds = None
    complete = False
    stopping = False

    def __init__(self, parameters: int, mechanism: Any) -> None:
        self.weights = np.zeros(parameters, np.float32)
        self.mechanism = mechanism

    def waiting(self, reason: str) -> None:
        """Tell nobody."""

    def parameters(self) -> dict[str, Any]:
        """Return zeros."""
        return {"weights": self.weights}

    def fit(self, parameters: Incoming, config: Mapping[str, Scalar]) -> Update:
        """Add a hundredth to what arrived."""
        from locex.api import Update

        (arrived,) = parameters.values() if isinstance(parameters, Mapping) else parameters
        self.complete = config["server_round"] == config["num_rounds"]
        new = {"weights": arrived + np.float32(0.01)}
        update = Update(new, {"weights": arrived}, 100, {})
        return self.mechanism.outgoing(update, config) if self.mechanism else update

    def evaluate(self, parameters: Incoming, config: Mapping[str, Scalar]) -> Evaluation:
        """Fail: nothing is evaluated."""
        raise NotImplementedError


def node(port: int, folder: Path, parameters: int, *, secure: bool) -> None:
    from locex.api import FederationContext
    from locex_flower.secagg import SecAggConfig, SecureAggregation
    from locex_flower.superlink import FlowerSuperlink

    mechanism = SecureAggregation(SecAggConfig()) if secure else None
    plugin = FlowerSuperlink()
    mechanisms = [mechanism] if mechanism else []
    context = FederationContext(f"127.0.0.1:{port}", folder, mechanisms=mechanisms)
    config = plugin.locex_config_model()(linger=0.1, backoff_initial=0.2)
    plugin.locex_create_federation(config, context).run(Node(parameters, mechanism))


async def train(bench: Bench, *, secure: bool, nodes: int, rounds: int, parameters: int) -> list[float]:
    """Return the seconds of every round but the first."""
    port, folder = free_port(), bench.folder / f"training-{free_port()}"
    folder.mkdir()
    plan = {"num_rounds": rounds, "min_available_clients": nodes, "min_fit_clients": nodes, "fraction_evaluate": 0}
    mechanisms = [{"name": "secagg"}] if secure else []
    spec = {"training_id": "t", "port": port, "folder": str(folder), "plan": plan, "federation": "flower-superlink"}
    child = await Child.start(python("locex_controller.training"))
    await child.send({**spec, "mechanisms": mechanisms})
    started, seconds = [], []
    while (message := await child.receive()) is not None:
        if message["kind"] == "ready":
            options = ["--parameters", parameters, *(["--secure"] if secure else [])]
            for number in range(nodes):
                arguments = ["--node", port, "--folder", folder / str(number), *options]
                started.append(bench.python(__file__, *arguments))
        elif message["kind"] == "round":
            seconds.append(float(message["fit_seconds"]))
        elif message["kind"] == "failed":
            raise SystemExit(json.dumps(message))
    await child.wait()
    for process in started:
        kill(process)
    return seconds[1:]


async def compare(nodes: int, rounds: int, repeats: int, parameters: int) -> None:
    found: dict[bool, list[float]] = {False: [], True: []}
    with ExitStack() as stack:
        bench = Bench(stack)
        for _ in range(repeats):
            for secure in found:
                found[secure] += await train(bench, secure=secure, nodes=nodes, rounds=rounds, parameters=parameters)
    plain, masked = (statistics.median(seconds) for seconds in found.values())
    print(f"{nodes} nodes, {parameters} parameters, median of {len(found[True])} rounds each")
    for name, seconds in (("plain", plain), ("secagg", masked)):
        print(f"{name:8} {seconds:6.2f} s a round")
    print(f"ratio    {masked / plain:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, one training each")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--parameters", type=int, default=100_000)
    parser.add_argument("--node", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--secure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node:
        node(options.node, options.folder, options.parameters, secure=options.secure)
    else:
        rounds, repeats = (4, 1) if options.quick else (11, 3)
        asyncio.run(compare(options.nodes, rounds, repeats, options.parameters))


if __name__ == "__main__":
    sys.exit(main())
