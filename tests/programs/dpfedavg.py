"""A stock Flower server with stock client-level clipping. Arguments: port, file for the results, rounds, strategy."""

import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
import flwr.server  # noqa: E402 -- it warns when it is imported
from flwr.server.strategy import (  # noqa: E402 -- likewise
    DifferentialPrivacyClientSideFixedClipping,
    DPFedAvgAdaptive,
    DPFedAvgFixed,
    FedAvg,
)

port, out, rounds, chosen = sys.argv[1:]
seen = []


class Recording(FedAvg):
    """Averages, and keeps what arrived: results, failures, norm bits, and the clipping norm before the round."""

    def aggregate_fit(self, server_round, results, failures):
        """Note the round."""
        bits = sum(bool(result.metrics.get("dpfedavg_norm_bit")) for _, result in results)
        seen.append([getattr(strategy, "clip_norm", 0.0), len(results), len(failures), bits])
        return super().aggregate_fit(server_round, results, failures)


average = Recording(min_fit_clients=2, min_evaluate_clients=2, min_available_clients=2)
if chosen == "adaptive":
    fields = {"init_clip_norm": 1e-3, "noise_multiplier": 0.05, "clip_count_stddev": 0.03}
    strategy = DPFedAvgAdaptive(average, num_sampled_clients=2, **fields)
elif chosen == "fixed":
    strategy = DPFedAvgFixed(average, num_sampled_clients=2, clip_norm=0.5, noise_multiplier=0.05)
else:
    strategy = DifferentialPrivacyClientSideFixedClipping(average, 0.05, 0.5, 2)

flwr.server.start_server(
    server_address=f"127.0.0.1:{port}", config=flwr.server.ServerConfig(num_rounds=int(rounds)), strategy=strategy
)
np.savez(out, seen=seen)
