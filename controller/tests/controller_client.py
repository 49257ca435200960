"""A Flower client for the tests: adds STEP to every parameter and says that it saw EXAMPLES examples.

Usage: controller_client.py ADDRESS STEP EXAMPLES [FAULT[@ROUND]]...; FAULT: nan, shape, raise, die, pause, withhold,
sealed (bytes instead of the model) or more (tensors).
A fault without a round is one of every round. What it was told in fit is printed as JSON lines.
"""

import contextlib
import json
import os
import sys
import time

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")

import flwr
import numpy as np

ADDRESS, STEP, EXAMPLES, FAULTS = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]


def faulty(fault, config):
    return fault in FAULTS or f"{fault}@{config['server_round']}" in FAULTS


class Client(flwr.client.NumPyClient):
    def get_parameters(self, config):
        if "mute" in FAULTS:
            os.kill(os.getpid(), 9)
        return [np.zeros((2, 3), np.float32), np.array(0, np.int64)]

    def fit(self, parameters, config):
        sys.stdout.write(json.dumps(dict(config)) + "\n")
        sys.stdout.flush()
        if faulty("die", config):
            os.kill(os.getpid(), 9)
        if faulty("raise", config):
            raise RuntimeError("no data today")
        if faulty("pause", config):
            time.sleep(0.5)
        trained = [np.asarray(tensor + np.float32(STEP)) for tensor in parameters]
        if faulty("nan", config):
            trained[0] = trained[0] * np.nan
        if faulty("shape", config):
            trained[0] = trained[0][:1]
        if faulty("sealed", config):
            trained = [np.frombuffer(b"sealed", np.uint8)] * (2 if faulty("more", config) else 1)
        return trained, EXAMPLES, {"loss": STEP}

    def evaluate(self, parameters, config):
        loss = float("nan") if faulty("withhold", config) else STEP
        return loss, EXAMPLES, {"accuracy": STEP / 10}


def main():
    for _ in range(100):  # the collector may be down for a while
        with contextlib.suppress(Exception):
            flwr.client.start_client(server_address=ADDRESS, client=Client().to_client(), insecure=True)
            return
        time.sleep(0.1)


if __name__ == "__main__":
    main()
