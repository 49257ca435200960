"""A Flower server that sends NaN in round 2 and wrong shapes in round 3. Arguments: port, file for good weights."""

import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
import flwr.server  # noqa: E402 -- it warns when it is imported
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays  # noqa: E402 -- likewise
from flwr.server.strategy import FedAvg  # noqa: E402 -- likewise

port, out = sys.argv[1:]


def poisoned(server_round, parameters):
    arrays = parameters_to_ndarrays(parameters)
    if server_round == 2:
        arrays = [array * np.nan for array in arrays]
    if server_round == 3:
        arrays = [array[..., :-1] for array in arrays]
    return ndarrays_to_parameters(arrays)


class Poisoned(FedAvg):
    def configure_fit(self, server_round, parameters, client_manager):
        return super().configure_fit(server_round, poisoned(server_round, parameters), client_manager)

    def configure_evaluate(self, server_round, parameters, client_manager):
        return super().configure_evaluate(server_round, poisoned(server_round, parameters), client_manager)

    def aggregate_fit(self, server_round, results, failures):
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        if parameters is not None:
            np.savez(out, *parameters_to_ndarrays(parameters))
        return parameters, metrics


flwr.server.start_server(
    server_address=f"127.0.0.1:{port}",
    config=flwr.server.ServerConfig(num_rounds=3),
    strategy=Poisoned(
        min_fit_clients=1,
        min_evaluate_clients=1,
        min_available_clients=1,
        on_fit_config_fn=lambda server_round: {"server_round": server_round},
        on_evaluate_config_fn=lambda server_round: {"server_round": server_round},
    ),
)
