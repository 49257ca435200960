"""What a model draws while it trains (drop-out, noise), from the seed of a round."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from locex.artefacts.batches import derived_seed
from locex_keras_builder.kerases import Keras


def reseed(keras: Keras, model: Any, *parts: int) -> None:
    """Let every generator of the model begin at a seed made of ``parts``."""
    if keras.name == "keras":
        states = [one for one in model.variables if one.path.endswith("seed_generator_state")]
        for number, state in enumerate(states):
            state.assign([derived_seed(*parts, number), 0])
        return
    for number, generator in enumerate(_own_generators(model)):
        generator.reset_from_seed(derived_seed(*parts, number))


def unseed(keras: Keras, model: Any) -> None:
    """Let every generator of the model begin at a seed of the operating system's entropy."""
    if keras.name == "keras":
        for one in model.variables:
            if one.path.endswith("seed_generator_state"):
                one.assign(np.frombuffer(os.urandom(8), np.uint32))
        return
    for generator in _own_generators(model):
        generator.reset_from_seed(int.from_bytes(os.urandom(7), "little"))


def _own_generators(model: Any) -> Iterator[Any]:
    """Yield a generator of each layer of tf_keras that draws; by default they share TensorFlow's global one."""
    for part in model.submodules:
        source = getattr(part, "_random_generator", None)
        if source is None:
            continue
        if source._rng_type != "stateful":  # noqa: SLF001 -- there is no other way to seed a traced function anew
            source._rng_type, source._built = "stateful", False  # noqa: SLF001
            source._maybe_init()  # noqa: SLF001
        yield source._generator  # noqa: SLF001
