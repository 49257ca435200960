"""Models built without memory for their weights, to count what a configuration declares."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from locex.errors import InvalidModel
from locex_keras_builder.kerases import Keras, import_tensorflow


def declared_elements(keras: Keras, make: Callable[[], Any]) -> int:
    """Return the number of weights of the model or layer that ``make`` returns; none of them is allocated."""
    return _in_a_graph(make) if keras.name == "tf_keras" else _without_values(keras, make)


def _without_values(keras: Keras, make: Callable[[], Any]) -> int:
    def count() -> int:
        # Keras 3 makes variables in this scope without values, and gives them values when the last scope is left: so
        # the scope is never left. Scopes belong to a thread, and end with it.
        keras.module.StatelessScope().__enter__()
        return _count(make())

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(count).result()


def _in_a_graph(make: Callable[[], Any]) -> int:
    # in a graph variables are declared, and made only by a session
    with import_tensorflow().Graph().as_default():
        return _count(make())


def _count(made: Any) -> int:
    return sum(math.prod(weight.shape) for weight in made.weights)


def require_backed(declared: int, stored: int) -> None:
    """Raise `InvalidModel` where a configuration declares more weights than the artefact holds."""
    if declared > stored:
        raise InvalidModel(
            f"the model declares {declared} weights, the artefact holds {stored}",
            remedy="save the model with all its weights, and upload that file unchanged",
        )
