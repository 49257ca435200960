"""Requests with many numbers as JSON: simdjson (optional, extra ``simdjson``) reads them into arrays, not lists."""

from __future__ import annotations

import threading
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import orjson

from locex.web.problems import MalformedBody

LARGE = 16 << 10
"""Bytes from which on the parser is worth its set-up."""

_KEPT = 8 << 20
"""Bytes: a parser that has read more is not kept, its memory is several times that."""

_kept = threading.local()

_TYPES = {"F": ("d", np.float64), "I": ("i", np.int64), "U": ("u", np.uint64)}
"""By the first letter of a data type: simdjson's name of a number, and NumPy's."""

simdjson: Any = import_module("simdjson") if find_spec("simdjson") else None


def parse_large(head: bytes | memoryview) -> dict[str, Any]:
    """Return the request; ``data`` of its inputs is a one-dimensional array where that is possible."""
    if simdjson is not None:
        try:
            return _parse(head)
        except (ValueError, TypeError, KeyError, OverflowError, RuntimeError):
            pass  # orjson, the reference, says what is wrong with it
    try:
        content = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the request is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise MalformedBody("the request is not a JSON object")
    return content


def _parse(head: bytes | memoryview) -> dict[str, Any]:
    # Set up anew for each request, a parser of this size takes three times as long.
    parser = _kept.__dict__.pop("parser", None) or simdjson.Parser()
    content = _read(parser.parse(head))
    if len(head) <= _KEPT:
        _kept.parser = parser
    return content


def _read(document: Any) -> dict[str, Any]:
    """Return plain values: a parser that is used again must have let go of its own."""
    content = {name: _plain(document[name]) for name in document.keys() if name != "inputs"}  # noqa: SIM118 -- `items` makes lists
    content["inputs"] = [_tensor(tensor) for tensor in document["inputs"]]
    return content


def _tensor(tensor: Any) -> dict[str, Any]:
    content = {name: _plain(tensor[name]) for name in tensor.keys() if name != "data"}  # noqa: SIM118 -- as above
    if "data" in tensor:
        data = tensor["data"]
        kind = _TYPES.get(str(content.get("datatype"))[:1])
        content["data"] = _plain(data) if kind is None else np.frombuffer(data.as_buffer(of_type=kind[0]), kind[1])
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value
