"""Homomorphic encryption: bytes and seconds per million parameters, locex's against NVIDIA FLARE's default.

Both use TenSEAL's CKKS, in one process, in turns; medians. FLARE's (``HEModelEncryptor``,
``HEInTimeAccumulateWeightedAggregator``): N=8192, [60, 40, 40], scale 2^40, a public key, one vector per layer, whose
ciphertexts TenSEAL makes on all cores. Ours: N=4096, [54, 54], scale 2^30, symmetric, the whole model packed, on one
core, through the mechanism and its aggregation, headers and checks included. Errors are against the exact average::

    python benchmarks/homomorphic.py [--values 1000000] [--nodes 3] [--repeats 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tenseal as ts
from click.testing import CliRunner
from sessions import plugin

from locex.api import Contribution, Update
from locex_privacy.homomorphic.commands import keys

EXAMPLES = 500
LAYERS = 4


def model(values: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {str(layer): generator.normal(0, 0.1, values // LAYERS).astype(np.float32) for layer in range(LAYERS)}


class _Ours:
    """The mechanism and its aggregation."""

    def __init__(self, values: int, nodes: int) -> None:
        self.nodes = nodes
        privacy, aggregation = plugin("privacy", "homomorphic"), plugin("aggregation", "homomorphic")
        self.reference = model(values, 0)
        self.node = privacy.locex_create_privacy(privacy.locex_config_model()(), None)
        self.node.prepare(types.SimpleNamespace(get_parameters=lambda: self.reference))
        self.server = aggregation.locex_create_aggregation(aggregation.locex_config_model()())

    def encrypt(self, weights: dict[str, np.ndarray]) -> Any:
        update = Update(weights, self.reference, EXAMPLES, {})
        sealed = self.node.outgoing(update, {**self.server.configure(1), "fit_clients": self.nodes})
        return Contribution(list(sealed.parameters.values()), EXAMPLES, {})

    def size(self, sealed: Any) -> int:
        return sum(array.nbytes for array in sealed.parameters)

    def add(self, sealed: list[Any]) -> Any:
        current = list(self.reference.values())
        assert not any(self.server.fault_of(one, current) for one in sealed)
        return self.server.aggregate(1, current, sealed)

    def decrypt(self, total: Any) -> np.ndarray:
        return np.concatenate([tensor.ravel() for tensor in self.node.incoming(total, {}).values()])


class _Flare:
    """FLARE's parameters, with TenSEAL as FLARE calls it."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.secret = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40])
        self.secret.global_scale = 2**40
        self.public = ts.context_from(self.secret.serialize(save_secret_key=False))

    def encrypt(self, weights: dict[str, np.ndarray]) -> Any:
        return [ts.ckks_vector(self.secret, layer * EXAMPLES).serialize() for layer in weights.values()]

    def size(self, sealed: Any) -> int:
        return sum(map(len, sealed))

    def add(self, sealed: list[Any]) -> Any:
        totals = [ts.ckks_vector_from(self.public, layer) for layer in sealed[0]]
        for other in sealed[1:]:
            totals = [
                total + ts.ckks_vector_from(self.public, layer) for total, layer in zip(totals, other, strict=True)
            ]
        return [total.serialize() for total in totals]

    def decrypt(self, total: Any) -> np.ndarray:
        layers = [np.array(ts.ckks_vector_from(self.secret, layer).decrypt()) for layer in total]
        return np.concatenate(layers) / (EXAMPLES * self.nodes)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def measure(subject: Any, weights: list[dict[str, np.ndarray]]) -> dict[str, float]:
    encrypting, first = timed(lambda: subject.encrypt(weights[0]))
    sealed = [first, *(subject.encrypt(one) for one in weights[1:])]
    adding, total = timed(lambda: subject.add(sealed))
    decrypting, average = timed(lambda: subject.decrypt(total))
    exact = np.mean([np.concatenate(list(one.values())).astype(np.float64) for one in weights], axis=0)
    millions = exact.size / 1e6
    return {
        "MB": subject.size(first) / 1e6 / millions,
        "encrypt_s": encrypting / millions,
        "add_s": adding / millions,
        "decrypt_s": decrypting / millions,
        "error": float(np.abs(average - exact).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        CliRunner().invoke(keys, ["new", "bench", "--folder", folder], catch_exceptions=False)
        os.environ["HM_SECRET_FILE"] = os.environ["HM_PUBLIC_FILE"] = str(Path(folder))
        subjects = {"locex": _Ours(chosen.values, chosen.nodes), "flare": _Flare(chosen.nodes)}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in subjects}
    for seed in range(chosen.repeats):
        weights = [model(chosen.values, seed * chosen.nodes + node) for node in range(chosen.nodes)]
        for name, subject in subjects.items():
            runs[name].append(measure(subject, weights))
    medians = {
        name: {key: statistics.median(one[key] for one in found) for key in found[0]} for name, found in runs.items()
    }
    if chosen.json:
        print(json.dumps(medians, indent=2))
        return
    print(f"per million parameters, {chosen.nodes} nodes, medians of {chosen.repeats}")
    for key in medians["locex"]:
        ours, theirs = medians["locex"][key], medians["flare"][key]
        print(f"{key:10} locex {ours:10.3g}   flare {theirs:10.3g}   ratio {ours / theirs:8.2f}")


if __name__ == "__main__":
    main()
