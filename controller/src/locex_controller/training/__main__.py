"""The process of one training: one spec on standard input, then messages as JSON lines until the end.

Messages out: ``ready``, ``state``, ``attempt``, ``round``, ``warning``, and one of ``finished``, ``stopped``,
``failed`` at the end. In: ``{"kind": "stop"}``. The process exits when standard input ends, since its parent is gone.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from locex.api import Aggregation, Stopped
from locex.errors import InvalidConfiguration, LocexError
from locex.plugins.catalog import read_catalog
from locex.plugins.host import Host
from locex.processes.channel import Channel
from locex.settings import PluginSettings
from locex_controller.secagg import SecureAverage
from locex_controller.training.port import bind
from locex_controller.training.rounds import Training
from locex_controller.training.spec import AggregationSpec, TrainingSpec
from locex_controller.training.wire import Wire

SUPERLINK = "flower-superlink"


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
    aggregation = _aggregation(spec.aggregation)
    wire = _open(spec, stop, aggregation)
    channel.send({"kind": "ready", "address": f"{spec.host}:{spec.port}"})
    try:
        Training(spec, aggregation, wire, channel.send, stop.is_set).run()
    finally:
        wire.close()


def _aggregation(chosen: AggregationSpec) -> Aggregation:
    settings = PluginSettings()
    sys.path.extend(str(folder) for folder in settings.plugin_folders)
    host = Host()
    catalog = read_catalog(settings.policy, settings.plugin_folders)
    loaded = host.load(catalog.find("aggregation", chosen.name, path=chosen.pointer))
    shared = {name: value for name, value in chosen.shared.items() if name in loaded.config_model.model_fields}
    return host.aggregation(host.configure(loaded, {**shared, **chosen.config}, at=chosen.config_pointer))


def _open(spec: TrainingSpec, stop: threading.Event, aggregation: Aggregation) -> Wire:
    secure = aggregation.config if isinstance(aggregation, SecureAverage) else None
    if secure and spec.federation != SUPERLINK:
        raise InvalidConfiguration(
            f"secagg needs four exchanges between server and nodes in each round, {spec.federation} has one",
            remedy=f"set the federation of the training, and of the nodes' jobs, to {SUPERLINK}",
            errors=[{"path": "/federation", "message": f"must be {SUPERLINK} for secagg"}],
        )
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
