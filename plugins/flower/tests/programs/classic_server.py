"""A stock classic Flower server. Arguments: port, rounds, file for the results, minimum of nodes, TLS folder or -."""

import json
import sys
import warnings
from pathlib import Path
from typing import ClassVar

import flwr.server
from flwr.server.strategy import FedAvg

warnings.simplefilter("ignore")
port, rounds, out, nodes, tls = sys.argv[1:]
globals_seen = []


def central(server_round, parameters, config):
    globals_seen.append([array.tolist() for array in parameters])
    return 0.0, {}


class Told(FedAvg):
    """Writes down the failures of each round; aggregates as ever."""

    failures: ClassVar = []

    def aggregate_fit(self, server_round, results, failures):
        self.failures.append(
            [type(one).__name__ if isinstance(one, BaseException) else one[1].status.message for one in failures]
        )
        self.metrics = [result.metrics for _, result in results]
        return super().aggregate_fit(server_round, results, failures)


strategy = Told(
    min_fit_clients=int(nodes),
    min_evaluate_clients=int(nodes),
    min_available_clients=int(nodes),
    evaluate_fn=central,
    on_fit_config_fn=lambda server_round: {
        "server_round": server_round,
        "rate": 0.5,
        "fast": True,
        "name": "x",
        "raw": b"\x00\x01",
    },
)
certificates = None
if tls != "-":
    certificates = tuple(Path(tls, name).read_bytes() for name in ("ca.pem", "server.pem", "server.key"))
history = flwr.server.start_server(
    server_address=f"127.0.0.1:{port}",
    config=flwr.server.ServerConfig(num_rounds=int(rounds)),
    strategy=strategy,
    certificates=certificates,
)
Path(out).write_text(
    json.dumps(
        {
            "globals": globals_seen,
            "losses": history.losses_distributed,
            "failures": strategy.failures,
            "metrics": [{key: repr(value) for key, value in one.items()} for one in strategy.metrics],
        }
    )
)
