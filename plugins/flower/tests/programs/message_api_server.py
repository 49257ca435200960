"""A stock Message-API ServerApp with stock FedAvg; its run configuration names what it takes."""

import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    nodes = int(context.run_config["nodes"])
    strategy = FedAvg(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
    weights = {"layer.weight": np.zeros((2, 3), np.float32), "layer.count": np.zeros(1, np.int64)}
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in weights.items()}),
        num_rounds=int(context.run_config["rounds"]),
        timeout=float(context.run_config["timeout"]),
    )
    Path(context.run_config["out"]).write_text(
        json.dumps(
            {
                "arrays": {name: array.numpy().tolist() for name, array in result.arrays.items()},
                "train": {key: dict(value) for key, value in result.train_metrics_clientapp.items()},
                "evaluate": {key: dict(value) for key, value in result.evaluate_metrics_clientapp.items()},
            }
        )
    )
