"""Inference beside MLServer, KServe and bare onnxruntime, in one run: CPU time per request, rate, latency, memory.

A small perceptron and a convolutional network (1 × 3 × 224 × 224) over JSON, the binary tensor extension and gRPC. The
load comes from a process of its own; each connection sends its next request when the answer came. Servers run one
after another, each alone with the load.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from inference_models import Model, write_models
from inference_servers import Server, peer_python, start_kserve, start_locex, start_mlserver
from processes import Bench

LOAD = Path(__file__).with_name("inference_load.py")
SERVICE = "/inference.GRPCInferenceService/ModelInfer"


def raw(model: Model, threads: int, seconds: float) -> dict:
    """Call bare onnxruntime in as many threads, each call with one thread of its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.path, options)
    counts = [0] * threads
    session.run(None, {"input": model.example})
    until = time.perf_counter() + seconds

    def call(number: int) -> None:
        while time.perf_counter() < until:
            session.run(None, {"input": model.example})
            counts[number] += 1

    workers = [threading.Thread(target=call, args=(number,)) for number in range(threads)]
    own = psutil.Process()
    began, cpu = time.perf_counter(), sum(own.cpu_times()[:2])
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rate = sum(counts) / (time.perf_counter() - began)
    return {"rate": rate, "cpu_us": (sum(own.cpu_times()[:2]) - cpu) / sum(counts) * 1e6}


def request_of(model: Model, protocol: str) -> tuple[bytes, dict[str, str]]:
    """Return the bytes and headers of one request, as tritonclient writes it."""
    shape = list(model.example.shape)
    if protocol == "grpc":
        message = triton_grpc.service_pb2.ModelInferRequest(model_name=model.name)
        message.inputs.add(name="input", datatype="FP32", shape=shape)
        message.raw_input_contents.append(model.example.tobytes())
        return message.SerializeToString(), {}
    tensor = triton_http.InferInput("input", shape, "FP32")
    tensor.set_data_from_numpy(model.example, binary_data=protocol == "binary")
    output = triton_http.InferRequestedOutput("output", binary_data=protocol == "binary")
    body, header = triton_http.InferenceServerClient.generate_request_body([tensor], outputs=[output])
    if header is None:
        return body, {"Content-Type": "application/json"}
    return body, {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(header)}


def check(server: Server, model: Model, protocol: str) -> None:
    """Refuse to measure a server whose answer is not onnxruntime's."""
    (expected,) = onnxruntime.InferenceSession(model.path).run(None, {"input": model.example})
    module, port = (triton_grpc, server.grpc) if protocol == "grpc" else (triton_http, server.http)
    tensor = module.InferInput("input", list(model.example.shape), "FP32")
    binary = {} if protocol == "grpc" else {"binary_data": protocol == "binary"}
    tensor.set_data_from_numpy(model.example, **binary)
    outputs = [module.InferRequestedOutput("output", **binary)]
    with module.InferenceServerClient(f"127.0.0.1:{port}") as client:
        json_type = (
            {"headers": {"Content-Type": "application/json"}} if protocol == "json" else {}
        )  # KServe asks for it
        answer = client.infer(model.name, [tensor], outputs=outputs, **json_type).as_numpy("output")
    np.testing.assert_allclose(answer.reshape(expected.shape), expected, rtol=1e-3, atol=1e-3)


def measured(bench: Bench, server: Server, model: Model, protocol: str, connections: int, seconds: float) -> dict:
    """Put one server under load."""
    body, headers = request_of(model, protocol)
    (bench.folder / "body").write_bytes(body)
    spec = {
        "protocol": "grpc" if protocol == "grpc" else "http",
        "host": "127.0.0.1",
        "port": server.grpc if protocol == "grpc" else server.http,
        "path": SERVICE if protocol == "grpc" else f"/v2/models/{model.name}/infer",
        "body": str(bench.folder / "body"),
        "headers": headers,
        "connections": connections,
        "seconds": seconds,
        "warmup": min(1, seconds / 3),
        "pid": server.pid,
    }
    (bench.folder / "spec").write_text(json.dumps(spec))
    run = subprocess.run([sys.executable, LOAD, bench.folder / "spec"], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"the load on {server.name} failed:\n{run.stderr[-2000:]}")
    result = json.loads(run.stdout)
    if result["errors"]:
        raise SystemExit(f"{server.name}: {result['errors']} of {result['requests']} failed:\n{run.stderr[-2000:]}")
    return result | {"memory_mb": server.memory_mb()}


def servers(arguments: argparse.Namespace, folder: Path) -> dict:
    """Return what starts each server, by name."""
    starts = {"locex": start_locex}
    starts["locex, batching off"] = lambda bench, models: start_locex(
        bench, models, name="locex, batching off", options={"micro_batching": "off"}
    )
    if not arguments.alone:
        pythons = {name: peer_python(name, folder) for name in ("mlserver", "kserve")}
        starts["MLServer"] = lambda bench, models: start_mlserver(bench, models, pythons["mlserver"])
        starts["KServe"] = lambda bench, models: start_kserve(bench, models, pythons["kserve"])
    return starts


def run(arguments: argparse.Namespace) -> list[dict]:
    """Measure everything, each model on a server of its own; return a row for each cell."""
    rows = []
    with ExitStack() as stack:
        folder = arguments.peers or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locex-peers-")))
        starts = servers(arguments, folder)
        models = [
            model
            for model in write_models(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            if model.name in arguments.models
        ]
        for model in models:
            for threads in (1, 2):
                cell = {"server": f"onnxruntime, {threads} thread{'s' * (threads > 1)}", "model": model.name}
                rows.append(cell | raw(model, threads, arguments.seconds))
                show(rows[-1])
        for model, start in product(models, starts.values()):
            with ExitStack() as inner:
                bench = Bench(inner)
                server = start(bench, [model])
                for protocol in (one for one in server.protocols if one in arguments.protocols):
                    check(server, model, protocol)
                    for connections in arguments.connections:
                        cell = {
                            "server": server.name,
                            "model": model.name,
                            "protocol": protocol,
                            "connections": connections,
                        }
                        result = measured(bench, server, model, protocol, connections, arguments.seconds)
                        rows.append(cell | result)
                        show(rows[-1])
    return rows


def show(row: dict) -> None:
    """Print a row of the table."""
    told = "".join(f"{row.get(key, ''):>10}" for key in ("model", "protocol", "connections"))
    numbers = "".join(
        f"{row[key]:>11.{digits}f}" if key in row else " " * 11
        for key, digits in (("rate", 0), ("cpu_us", 0), ("p50_ms", 2), ("p99_ms", 2), ("memory_mb", 0))
    )
    print(f"{row['server']:<24}{told}{numbers}", flush=True)


def ratios(rows: list[dict]) -> None:
    """Print how much CPU time the others take for what locex does, and rates against bare onnxruntime."""
    print("\nCPU time per request, times that of locex in the same cell (JSON where the peer has no binary tensors):")
    ours = {(row["model"], row["protocol"], row["connections"]): row for row in rows if row["server"] == "locex"}
    for row in rows:
        cell = (row["model"], row.get("protocol"), row.get("connections"))
        if cell in ours and not row["server"].startswith("locex"):
            factor = row["cpu_us"] / ours[cell]["cpu_us"]
            print(f"  {row['server']:<12}{cell[0]:>6}{cell[1]:>8}{cell[2]:>5} connections{factor:>8.1f}")
    bare = {row["model"]: row for row in rows if row["server"] == "onnxruntime, 2 threads"}
    print("\nthe convolutional network against bare onnxruntime with two threads: its CPU time as a part of the")
    print("server's, and the server's rate as a part of its:")
    for row in rows:
        if row["model"] == "cnn" and "protocol" in row:
            parts = bare["cnn"]["cpu_us"] / row["cpu_us"], row["rate"] / bare["cnn"]["rate"]
            cell = f"{row['server']:<22}{row['protocol']:>8}{row['connections']:>5} connections"
            print(f"  {cell}{parts[0]:>8.2f}{parts[1]:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a second for each cell, only for a look")
    parser.add_argument("--seconds", type=float, default=4, help="of each cell")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--models", nargs="+", default=["mlp", "cnn"])
    parser.add_argument("--protocols", nargs="+", default=["json", "binary", "grpc"])
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments; kept, and made where absent")
    parser.add_argument("--alone", action="store_true", help="without MLServer and KServe")
    parser.add_argument("--json", type=Path, help="also write the rows to a file")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.connections = 1, [1, 32]
    load = psutil.getloadavg()[0]
    print(f"load of the machine before: {load:.1f} on {psutil.cpu_count()} cores\n")
    headings = ("model", "protocol", "conns"), ("req/s", "CPU µs", "p50 ms", "p99 ms", "MiB")
    print(f"{'server':<24}{''.join(f'{one:>10}' for one in headings[0])}{''.join(f'{one:>11}' for one in headings[1])}")
    rows = run(arguments)
    ratios(rows)
    print(f"\nload of the machine after: {psutil.getloadavg()[0]:.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
