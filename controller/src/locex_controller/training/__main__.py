"""The process of one training: one spec on standard input, then messages as JSON lines until the end.

Messages out: ``ready``, ``state``, ``attempt``, ``round``, ``warning``, and one of ``finished``, ``stopped``,
``failed`` at the end. In: ``{"kind": "stop"}``. The process exits when standard input ends, since its parent is gone.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from locex.api import Stopped
from locex.errors import LocexError
from locex.processes.channel import Channel
from locex_controller.secagg import SecAggConfig, secure_sum
from locex_controller.training.halves import load_halves
from locex_controller.training.port import bind
from locex_controller.training.rounds import Training
from locex_controller.training.spec import TrainingSpec
from locex_controller.training.wire import Wire


def main() -> None:
    """Run the training of the spec, and exit without waiting for threads of gRPC or of nodes that hang."""
    channel = Channel.take()
    spec = TrainingSpec.model_validate(channel.receive())
    stop = threading.Event()
    threading.Thread(target=_listen, args=(channel, stop), daemon=True).start()
    code = 0
    try:
        _run(spec, channel, stop)
        channel.send({"kind": "finished"})
    except Stopped:
        channel.send({"kind": "stopped"})
    except LocexError as error:
        channel.send({"kind": "failed", "error": error.to_json()})
        code = 1
    except BaseException as error:  # noqa: BLE001 -- told to the parent before the end, whatever it is
        channel.send({"kind": "failed", "error": {"code": "internal", "message": f"{type(error).__name__}: {error}"}})
        code = 1
    sys.stderr.flush()
    os._exit(code)


def _run(spec: TrainingSpec, channel: Channel, stop: threading.Event) -> None:
    halves = load_halves(spec.aggregation, spec.mechanisms)
    wire = _open(spec, stop, secure_sum(spec, halves.decoders))
    channel.send({"kind": "ready", "address": f"{spec.host}:{spec.port}", "warnings": list(halves.warnings)})
    try:
        Training(spec, halves, wire, channel.send, stop.is_set).run()
    finally:
        wire.close()


def _open(spec: TrainingSpec, stop: threading.Event, secure: SecAggConfig | None) -> Wire:
    bind(spec.host, spec.port).close()
    _keep_flower_home(spec)
    if spec.federation == "flower-grpc":
        from locex_controller.training.grpc_wire import GrpcWire

        return GrpcWire(spec, stop.is_set)
    if secure:
        from locex_controller.training.secagg_wire import SecAggWire

        return SecAggWire(spec, stop.is_set, secure)
    from locex_controller.training.superlink_wire import SuperLinkWire

    return SuperLinkWire(spec, stop.is_set)


def _keep_flower_home(spec: TrainingSpec) -> None:
    """Flower reads these when it is imported: nothing is sent home, and its files stay in the training's folder."""
    home = spec.folder / "flower"
    home.mkdir(parents=True, exist_ok=True)
    switches = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    os.environ.update({**switches, "HOME": str(home), "FLWR_HOME": str(home / ".flwr")})


def _listen(channel: Channel, stop: threading.Event) -> None:
    while (message := _next(channel)) is not None:
        if message.get("kind") == "stop":
            stop.set()
    os._exit(1)


def _next(channel: Channel) -> dict[str, Any] | None:
    try:
        return channel.receive()
    except ValueError:
        return {}


if __name__ == "__main__":
    main()
