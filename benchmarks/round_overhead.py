"""Round overhead (round time minus fit and evaluate) with a tiny NumPy model and two nodes, in one run.

    python benchmarks/round_overhead.py [--quick]

Compares locex's nodes on `flower-grpc` and `flower-superlink` with stock `flower-supernode`s. Every server and node
is a process of its own. Rounds are timed at the server, between its central evaluations; the first is left out, since
it pays imports and registration. The time of fit and evaluate is what the slower node reports (locex) or negligible
(stock).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from processes import Bench, free_port, start_superlink

if TYPE_CHECKING:
    from locex.api import Evaluation, Incoming, Scalar, Update

ROUNDS = {"flower-grpc": 50, "flower-superlink, poll 0.1 s": 15, "flower-superlink": 5, "flower-supernode": 3}

PROJECT = """
[project]
name = "overhead"
version = "1.0.0"
description = ""
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41.0"]
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "locex"
fab-format-version = 1
flwr-version-target = "1.41.0"
[tool.flwr.app.components]
serverapp = "overhead.server:app"
clientapp = "overhead.client:app"
[tool.flwr.app.config]
rounds = 2
poll = 0.0
out = ""
"""

SERVER = """
import json, time
from pathlib import Path
import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

class Polling:
    # Flower's own grid sleeps 3 s between two looks for replies
    def __init__(self, grid, seconds):
        self.grid, self.seconds = grid, seconds

    def __getattr__(self, name):
        return getattr(self.grid, name)

    def send_and_receive(self, messages, *, timeout=None):
        pending, replies = set(self.grid.push_messages(messages)), []
        while pending:
            new = list(self.grid.pull_messages(pending))
            pending -= {reply.metadata.reply_to_message_id for reply in new}
            replies += new
            if pending:
                time.sleep(self.seconds)
        return replies

@app.main()
def main(grid, context):
    config, times = context.run_config, []
    grid = Polling(grid, config["poll"]) if config["poll"] else grid
    FedAvg().start(
        grid=grid,
        initial_arrays=ArrayRecord({"w": Array(np.zeros((10, 10), np.float32))}),
        num_rounds=config["rounds"],
        evaluate_fn=lambda server_round, arrays: times.append(time.time()),
    )
    Path(config["out"]).write_text(json.dumps(times))
"""

CLIENT = """
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    arrays = ArrayRecord({name: Array(array.numpy() + 1) for name, array in message.content["arrays"].items()})
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

@app.evaluate()
def evaluate(message, context):
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.0})}), reply_to=message)
"""


# --- one measurement, each with fresh processes ---


def classic(rounds: int) -> list[float]:
    with ExitStack() as stack:
        bench = Bench(stack)
        port, out = free_port(), bench.folder / "times.json"
        bench.python(__file__, "--serve", port, rounds, out)
        outs = nodes(bench, "grpc:FlowerGrpc", port, rounds)
        return overheads(bench, out, outs, 120)


def superlink(rounds: int, *, poll: float = 0.0, stock: bool = False) -> list[float]:
    with ExitStack() as stack:
        bench = Bench(stack)
        port, out = free_port(), bench.folder / "times.json"
        start_superlink(bench, port)
        outs = []
        if stock:
            for _ in range(2):
                bench.start("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--port", free_port())
        else:
            outs = nodes(bench, "superlink:FlowerSuperlink", port, rounds)
        submit(bench, port, rounds, poll, out)
        return overheads(bench, out, outs, 90 + 60 * rounds if stock else 60 + 10 * rounds)


def nodes(bench: Bench, plugin: str, port: int, rounds: int) -> list[Path]:
    outs = [bench.folder / f"node{index}.json" for index in range(2)]
    for out in outs:
        bench.python(__file__, "--join", plugin, port, rounds, out)
    return outs


def submit(bench: Bench, port: int, rounds: int, poll: float, out: Path) -> None:
    package = bench.folder / "app" / "overhead"
    package.mkdir(parents=True)
    (package.parent / "pyproject.toml").write_text(PROJECT)
    (package.parent / "LICENSE").write_text("Apache-2.0")
    for name, content in {"__init__": "", "server": SERVER, "client": CLIENT}.items():
        (package / f"{name}.py").write_text(content)
    (bench.folder / "flwr").mkdir(exist_ok=True)
    connection = f'[superlink]\ndefault = "local"\n[superlink.local]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    (bench.folder / "flwr" / "config.toml").write_text(connection)
    overrides = f'rounds={rounds} poll={poll} out="{out}"'
    if bench.start("flwr", "run", package.parent, "local", "-c", overrides).wait(60) != 0:
        raise SystemExit("the run was not accepted")


def overheads(bench: Bench, out: Path, outs: list[Path], seconds: float) -> list[float]:
    """Return each round's overhead in seconds, the first round left out."""
    times = bench.read(out, seconds)
    spent = [sum(bench.read(one, 60)) for one in outs]
    busy = max(spent, default=0.0) / (len(times) - 1)
    return [later - earlier - busy for earlier, later in pairwise(times[1:])]


# --- the processes ---


def serve(port: str, rounds: str, out: str) -> None:
    """Run a stock classic server."""
    import flwr.server
    import numpy as np
    from flwr.common import ndarrays_to_parameters
    from flwr.server.strategy import FedAvg

    times: list[float] = []

    def central(*_: object) -> None:
        times.append(time.time())

    strategy = FedAvg(
        evaluate_fn=central,
        initial_parameters=ndarrays_to_parameters([np.zeros((10, 10), np.float32)]),
    )
    config = flwr.server.ServerConfig(num_rounds=int(rounds))
    flwr.server.start_server(server_address=f"127.0.0.1:{port}", config=config, strategy=strategy)
    Path(out).write_text(json.dumps(times))


def join(plugin: str, port: str, rounds: str, out: str) -> None:
    """Run a node of ours with a tiny NumPy model."""
    from importlib import import_module

    from locex.api import Evaluation, FederationContext, Update

    spent: list[float] = []

    class Tiny:
        rounds, complete, stopping = None, False, False

        def waiting(self, reason: str) -> None: ...

        def fit(self, parameters: Incoming, _config: Mapping[str, Scalar]) -> Update:
            began = time.perf_counter()
            arrays = dict(parameters) if isinstance(parameters, Mapping) else {"w": parameters[0]}
            update = Update({name: array + 1 for name, array in arrays.items()}, arrays, 1, {})
            spent.append(time.perf_counter() - began)
            return update

        def evaluate(self, _parameters: Incoming, _config: Mapping[str, Scalar]) -> Evaluation:
            return Evaluation(0.0, 1, {})

    module, name = plugin.split(":")
    federation = getattr(import_module(f"locex_flower.{module}"), name)()
    config = federation.locex_config_model()(backoff_initial=0.2)
    context = FederationContext(f"127.0.0.1:{port}", Path(out).parent / "run")
    federation.locex_create_federation(config, context).run(Tiny())
    Path(out).write_text(json.dumps(spent[: int(rounds)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="few rounds; only for a look")
    quick = parser.parse_args().quick
    rounds = {name: 3 if quick else count for name, count in ROUNDS.items()}
    measured = {
        "flower-grpc": classic(rounds["flower-grpc"]),
        "flower-superlink, poll 0.1 s": superlink(rounds["flower-superlink, poll 0.1 s"], poll=0.1),
        "flower-superlink": superlink(rounds["flower-superlink"]),
        "flower-supernode": superlink(rounds["flower-supernode"], stock=True),
    }
    stock = statistics.median(measured["flower-supernode"])
    servers = {"flower-grpc": "stock server", "flower-superlink, poll 0.1 s": "server polls every 0.1 s"}
    print(f"{'node':32}{'server':28}{'rounds':>7}{'median':>12}{'slowest':>12}{'stock / this':>14}")
    for name, seconds in measured.items():
        median, slowest = statistics.median(seconds), max(seconds)
        server = servers.get(name, "stock, polls every 3 s")
        node = name.partition(",")[0] + (" (stock)" if name == "flower-supernode" else " (locex)")
        figures = f"{len(seconds):>7}{median * 1000:>9.1f} ms{slowest * 1000:>9.1f} ms{stock / median:>13.1f}x"
        print(f"{node:32}{server:28}{figures}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    elif sys.argv[1:2] == ["--join"]:
        join(*sys.argv[2:])
    else:
        main()
