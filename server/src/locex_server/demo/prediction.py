"""A prediction by the trained model, over the Open Inference Protocol, made by the client that people have."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

_PATIENCE = 60.0  # seconds from the end of the training until the model serves
_POLL = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a version said of a test image (rows of bytes): the digit, how sure it is, and what it truly is."""

    model: str
    version: str
    image: list[list[int]]
    label: int
    digit: int
    probability: float
    milliseconds: float


async def predict(address: str, model: str, version: str, data: Path) -> Prediction:
    """Wait until an inference service (host:port) serves a version, and ask it about the first test image."""
    return await asyncio.to_thread(_predict, address, model, version, data)


def _predict(address: str, model: str, version: str, data: Path) -> Prediction:
    import numpy as np

    try:
        import tritonclient.http as triton
    except ImportError:
        raise click.ClickException("the demo needs tritonclient: pip install 'locex-server[demo]'") from None
    images, labels = np.load(data / "x_test.npy", mmap_mode="r"), np.load(data / "y_test.npy")
    image = np.ascontiguousarray(images[:1])
    with triton.InferenceServerClient(address) as client:
        _await(client, model, version)
        tensor = triton.InferInput("input", list(image.shape), "UINT8")
        tensor.set_data_from_numpy(image)  # as the site has it: the training's pipeline stands before the model
        client.infer(model, [tensor])
        began = time.perf_counter()
        answer = client.infer(model, [tensor])
        took = time.perf_counter() - began
    scores = answer.as_numpy("output")[0].astype(np.float64)
    chances = np.exp(scores - scores.max())
    return Prediction(
        model=model,
        version=str(answer.get_response()["model_version"]),
        image=image[0].tolist(),
        label=int(labels[0]),
        digit=int(scores.argmax()),
        probability=float(chances.max() / chances.sum()),
        milliseconds=took * 1e3,
    )


def _await(client: Any, model: str, version: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            if client.is_model_ready(model, version):
                return
        except OSError:  # it is just starting
            pass
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"{model} {version} is not served; the inference service's log is below the first node's state"
            )
        time.sleep(_POLL)
