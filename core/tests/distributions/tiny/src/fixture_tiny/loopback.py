import os
import subprocess
import time

import numpy as np

from locex.api import Stopped
from locex.errors import BadParameters, FederationLost
from locex.hookspecs import hookimpl
from locex.schemas.plugin import PluginConfig


class LoopbackConfig(PluginConfig):
    pass


class Connection:
    """A federation of one: what the node sends comes back as the global model.

    The server address chooses the play: ``nowhere`` is never reached, ``poison`` sends NaN in round 2, ``short`` ends
    after one round, ``unevaluated`` never evaluates, ``endless`` waits until the job is stopped, and ``family`` dies
    and leaves a child.
    """

    def __init__(self, context):
        self._play = context.server_address.partition(":")[0]

    def run(self, participant):
        if self._play == "nowhere":
            raise FederationLost("nobody answers", remedy="start the server")
        participant.waiting("connected")
        if self._play == "family":
            subprocess.Popen(["sleep", "600"])
            os._exit(5)
        while self._play == "endless":
            if participant.stopping:
                raise Stopped
            time.sleep(0.02)
        rounds = 1 if self._play == "short" else participant.rounds or 3
        weights = list(participant.parameters().values())
        for server_round in range(1, rounds + 1):
            config = {"server_round": server_round, "num_rounds": participant.rounds or rounds}
            time.sleep(float(os.environ.get("FIXTURE_ROUND_SECONDS", "0")))
            if self._play == "poison" and server_round == 2:
                self._poison(participant, weights, config)
                continue
            update = participant.fit(weights, config)
            weights = [tensor.astype(np.float32) for tensor in update.parameters.values()]
            if self._play != "unevaluated":
                participant.evaluate(weights, config)
        assert participant.complete or self._play in {"short", "unevaluated"}

    def _poison(self, participant, weights, config):
        try:
            participant.fit([np.full_like(weights[0], np.nan), *weights[1:]], config)
        except BadParameters:
            return
        raise AssertionError("NaN was let in")


class Loopback:
    """A federation of one, in the process."""

    @hookimpl
    def locex_config_model(self):
        return LoopbackConfig

    @hookimpl
    def locex_create_federation(self, config, context):
        return Connection(context)
