"""A stock Flower server with stock FedAvg. Arguments: port, file for the results, rounds."""

import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
import flwr.server  # noqa: E402 -- it warns when it is imported
from flwr.server.strategy import FedAvg  # noqa: E402 -- likewise

port, out, rounds = sys.argv[1:]
history = flwr.server.start_server(
    server_address=f"127.0.0.1:{port}",
    config=flwr.server.ServerConfig(num_rounds=int(rounds)),
    strategy=FedAvg(min_fit_clients=2, min_evaluate_clients=2, min_available_clients=2),
)
np.savez(out, losses=[loss for _, loss in history.losses_distributed])
