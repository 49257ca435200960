"""A node for the tests: joins a SuperLink by the installed federation plugin, adding STEP to every parameter.

Usage: controller_node.py ADDRESS STEP EXAMPLES FOLDER
"""

import sys
from pathlib import Path

import numpy as np

from locex.api import Evaluation, FederationContext, Update
from locex.plugins.catalog import read_catalog
from locex.plugins.host import Host

ADDRESS, STEP, EXAMPLES, FOLDER = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])


class Node:
    rounds = None
    complete = False
    stopping = False

    def waiting(self, reason):
        """Tell nobody."""

    def parameters(self):
        return {"weight": np.zeros((2, 3), np.float32), "count": np.array(0, np.int64)}

    def fit(self, parameters, config):
        tensors = parameters.values() if isinstance(parameters, dict) else parameters
        trained = [np.asarray(tensor + np.float32(STEP)) for tensor in tensors]
        self.complete = config["server_round"] == config["num_rounds"]
        return Update(dict(zip(self.parameters(), trained, strict=True)), self.parameters(), EXAMPLES, {"loss": STEP})

    def evaluate(self, parameters, config):
        return Evaluation(STEP, EXAMPLES, {"accuracy": STEP / 10})


def main():
    host = Host()
    plugin = host.configure(host.load(read_catalog().find("federation", "flower-superlink")), {})
    host.federation(plugin, FederationContext(server_address=ADDRESS, folder=FOLDER)).run(Node())


if __name__ == "__main__":
    main()
