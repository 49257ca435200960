"""A stock Flower server with stock adaptive clipping. Arguments: port, file for the results, rounds."""

import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
import flwr.server  # noqa: E402 -- it warns when it is imported
from flwr.server.strategy import DPFedAvgAdaptive, FedAvg  # noqa: E402 -- likewise

port, out, rounds = sys.argv[1:]
norms = []


class Recording(DPFedAvgAdaptive):
    """Flower's strategy; the clipping norm of every round is kept, and what failed."""

    def aggregate_fit(self, server_round, results, failures):
        """Note the norm and the bits that nodes told."""
        bits = [result.metrics["dpfedavg_norm_bit"] for _, result in results]
        norms.append([self.clip_norm, len(results), len(failures), sum(bits)])
        return super().aggregate_fit(server_round, results, failures)


flwr.server.start_server(
    server_address=f"127.0.0.1:{port}",
    config=flwr.server.ServerConfig(num_rounds=int(rounds)),
    strategy=Recording(
        FedAvg(min_fit_clients=2, min_evaluate_clients=2, min_available_clients=2),
        num_sampled_clients=2,
        init_clip_norm=1e-3,
        noise_multiplier=0.05,
        clip_count_stddev=0.03,
    ),
)
np.savez(out, norms=norms)
