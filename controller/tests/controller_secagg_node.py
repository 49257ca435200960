"""A node whose updates leave masked: joins a SuperLink, adding STEP to every parameter.

Usage: controller_secagg_node.py ADDRESS STEP EXAMPLES FOLDER FIELDS FAULT…; FIELDS: secagg's fields as JSON;
FAULT: ``fit@N`` or ``evaluate@N``, where the node kills itself.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from locex.api import Evaluation, FederationContext, PrivacyContext, Update
from locex.plugins.catalog import read_catalog
from locex.plugins.host import Host

ADDRESS, STEP, EXAMPLES, FOLDER = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
FIELDS, FAULTS = json.loads(sys.argv[5]), sys.argv[6:]


class Node:
    rounds = None
    complete = False
    stopping = False

    def __init__(self, mechanism):
        self.mechanism = mechanism

    def waiting(self, reason):
        """Tell nobody."""

    def parameters(self):
        return {"weight": np.zeros((2, 3), np.float32), "count": np.array(0, np.int64)}

    def fit(self, parameters, config):
        die(f"fit@{config['server_round']}")
        trained = [np.asarray(tensor + np.float32(STEP)) for tensor in parameters]
        update = Update(dict(zip(self.parameters(), trained, strict=True)), self.parameters(), EXAMPLES, {"loss": STEP})
        return self.mechanism.outgoing(update, config)

    def evaluate(self, parameters, config):
        die(f"evaluate@{config['server_round']}")
        self.complete = config["server_round"] == config["num_rounds"]
        return Evaluation(STEP, EXAMPLES, {})


def die(where):
    if where in FAULTS:
        os.kill(os.getpid(), signal.SIGKILL)


def main():
    host, catalog = Host(), read_catalog()
    secagg = host.configure(host.load(catalog.find("privacy", "secagg")), FIELDS)
    mechanism = host.privacy(secagg, PrivacyContext("data", lambda unit: None, lambda unit, epsilon: None))
    plugin = host.configure(host.load(catalog.find("federation", "flower-superlink")), {})
    context = FederationContext(server_address=ADDRESS, folder=FOLDER, mechanisms=[mechanism])
    host.federation(plugin, context).run(Node(mechanism))


if __name__ == "__main__":
    main()
