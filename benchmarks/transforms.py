"""Transformations against the same steps in torchvision, in one run.

Ours are NumPy on whole batches; torchvision's (v2) are measured on whole batches of tensors and image by image, as a
``Dataset`` with a ``transform`` applies them. Each pair works on the same images and must agree. Repeats alternate, so
that other load meets all alike. Needs torchvision beside torch (``pip install torchvision``)::

    python benchmarks/transforms.py [--images 64] [--size 224] [--repeats 7] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sessions import plugin

from locex.api import Dataset, RandomTransform

CHANNELS = 3


def load_torchvision() -> Any:
    """Import torchvision, also where its wheel is for GPUs alone: the compiled operators are not needed here."""
    register = torch.library.register_fake
    torch.library.register_fake = lambda *_, **__: lambda function: function  # type: ignore[assignment]
    try:
        from torchvision.transforms.v2 import functional
    finally:
        torch.library.register_fake = register
    return functional


def transform_of(name: str, **fields: Any) -> Any:
    made = plugin("transform", name)
    return made.locex_create_transform(made.locex_config_model()(**fields))


def step(name: str, **fields: Any) -> Callable[[np.ndarray], np.ndarray]:
    transform = transform_of(name, **fields)

    def run(x: np.ndarray) -> np.ndarray:
        data = Dataset(x, np.zeros(len(x)))
        if isinstance(transform, RandomTransform):
            return transform.transform_batch(data, np.random.default_rng(0)).x
        return transform.transform_data(data).x

    return run


def cases(size: int, images: np.ndarray, functional: Any) -> dict[str, tuple[Any, Any, np.ndarray, float]]:
    """Return (ours, torchvision's, input, tolerance) by name; images have channels first."""
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    floats = (images / 255).astype(np.float32)
    half, axes = [size // 2, size // 2], [1, 2]
    scores = np.random.default_rng(1).normal(size=(len(images) * 100, 1000)).astype(np.float32)
    classes = np.random.default_rng(2).integers(0, 1000, len(images) * 1000)
    antialias = {"antialias": True}
    return {
        "rescale to float": (
            step("rescale"),
            lambda x: functional.to_dtype(x, torch.float32, scale=True),
            images,
            1e-6,
        ),
        "basic_norm per channel": (
            step("basic_norm", mean=mean, std=std, axis=0),
            lambda x: functional.normalize(x, mean, std),
            floats,
            1e-5,
        ),
        "resize to half, bytes": (
            step("resize", size=half, axes=axes),
            lambda x: functional.resize(x, half, **antialias),
            images,
            1.01,
        ),
        "resize to half, floats": (
            step("resize", size=half, axes=axes),
            lambda x: functional.resize(x, half, **antialias),
            floats,
            1e-4,
        ),
        "resize to double, floats": (
            step("resize", size=[2 * size, 2 * size], axes=axes),
            lambda x: functional.resize(x, [2 * size, 2 * size], **antialias),
            floats,
            1e-4,
        ),
        "crop": (step("crop", size=half, axes=axes), lambda x: functional.center_crop(x, half), images, 0),
        "transpose to channels last": (step("transpose", axes=[1, 2, 0]), lambda x: x.movedim(-3, -1), images, 0),
        "clip": (step("clip", min=0.25, max=0.75), lambda x: x.clamp(0.25, 0.75), floats, 0),
        "random_flip, all": (
            step("random_flip", axis=2, probability=1),
            functional.horizontal_flip,
            images,
            0,
        ),
        "random_noise": (
            step("random_noise", std=0.1),
            lambda x: functional.gaussian_noise(x, sigma=0.1, clip=False),
            floats,
            2,
        ),
        "softmax": (step("softmax"), lambda x: x.softmax(-1), scores, 1e-5),
        "argmax": (step("argmax"), lambda x: x.argmax(-1), scores, 0),
        "categorical": (one_hot(1000), lambda x: torch.nn.functional.one_hot(x, 1000).float(), classes, 0),
    }


def one_hot(classes: int) -> Callable[[np.ndarray], np.ndarray]:
    transform = transform_of("categorical", categories=classes)
    return lambda x: transform.transform_data(Dataset(x, x)).y


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="transformations against torchvision's")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    functional = load_torchvision()
    images = np.random.default_rng(0).integers(0, 256, (given.images, CHANNELS, given.size, given.size), np.uint8)
    results = {}
    for name, (run, theirs, array, tolerance) in cases(given.size, images, functional).items():
        tensor = torch.from_numpy(array)
        found, expected = run(array), theirs(tensor).numpy()
        difference = float(np.abs(found.astype(np.float64) - expected).max())
        assert difference <= tolerance, f"{name}: results differ by {difference}"
        ways: dict[str, Callable[[], object]] = {
            "locex": lambda run=run, array=array: np.ascontiguousarray(run(array)),
            "batch": lambda theirs=theirs, tensor=tensor: theirs(tensor).contiguous(),
            "one by one": lambda theirs=theirs, tensor=tensor: torch.stack([theirs(one) for one in tensor[:2000]]),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(given.repeats):
            for way, call in ways.items():
                seconds[way].append(timed(call))
        medians = {way: statistics.median(values) for way, values in seconds.items()}
        medians["one by one"] *= len(tensor) / min(len(tensor), 2000)
        results[name] = medians
    if given.json:
        print(json.dumps(results))
        return
    print(f"{given.images} images of {given.size}x{given.size}, {torch.get_num_threads()} threads; ms, medians")
    print(f"{'':26} {'locex':>8} {'batch':>8} {'one by one':>11}   locex/batch  locex/one by one")
    for name, median in results.items():
        own, batch, single = (median[way] for way in ("locex", "batch", "one by one"))
        figures = f"{own * 1e3:8.1f} {batch * 1e3:8.1f} {single * 1e3:11.1f}"
        print(f"{name:26} {figures} {own / batch:13.2f} {own / single:17.2f}")


if __name__ == "__main__":
    main()
