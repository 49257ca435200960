"""A stock ServerApp with Flower's own SecAgg+ workflow and FedAvg; its run configuration names what it takes."""

import json
from pathlib import Path

import numpy as np
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.compat.common.recorddict_compat import arrayrecord_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    nodes = int(context.run_config["nodes"])
    weights = [np.zeros((2, 3), np.float32), np.zeros(1, np.int64)]
    strategy = FedAvg(
        min_fit_clients=nodes,
        min_evaluate_clients=nodes,
        min_available_clients=nodes,
        initial_parameters=ndarrays_to_parameters(weights),
    )
    config = ServerConfig(num_rounds=int(context.run_config["rounds"]))
    legacy = LegacyContext(context, config, strategy)
    secagg = SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2, max_weight=100.0)
    DefaultWorkflow(fit_workflow=secagg)(grid, legacy)
    parameters = arrayrecord_to_parameters(legacy.state.array_records["parameters"], keep_input=True)
    result = {
        "arrays": [array.tolist() for array in parameters_to_ndarrays(parameters)],
        "losses": legacy.history.losses_distributed,
    }
    Path(context.run_config["out"]).write_text(json.dumps(result))
