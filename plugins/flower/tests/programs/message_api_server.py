"""A stock Message-API ServerApp with stock FedAvg; its run configuration names what it takes.

A SuperLink throws away what a ServerApp prints: what made one fail is written beside its results, as ``*.failed``.
"""

import json
import traceback
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    out = Path(context.run_config["out"])
    try:
        run(grid, context.run_config, out)
    except Exception:
        writing = out.with_suffix(".writing")
        writing.write_text(traceback.format_exc())
        writing.rename(out.with_suffix(".failed"))
        raise


def run(grid, config, out):
    nodes = int(config["nodes"])
    strategy = FedAvg(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
    weights = {"layer.weight": np.zeros((2, 3), np.float32), "layer.count": np.zeros(1, np.int64)}
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in weights.items()}),
        num_rounds=int(config["rounds"]),
        timeout=float(config["timeout"]),
    )
    out.write_text(
        json.dumps(
            {
                "arrays": {name: array.numpy().tolist() for name, array in result.arrays.items()},
                "train": {key: dict(value) for key, value in result.train_metrics_clientapp.items()},
                "evaluate": {key: dict(value) for key, value in result.evaluate_metrics_clientapp.items()},
            }
        )
    )
