"""JSON as RFC 8259 has it, from strangers: bounded nesting, no NaN, no duplicate keys, only whole characters."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from locex.web.problems import MalformedBody

DEPTH = 64
"""Arrays and objects may be nested this deep."""


def parse_json(body: bytes) -> Any:
    """Return the value, or raise `MalformedBody`."""
    try:
        value = json.loads(
            body.decode(), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique
        )
        _check(value)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise MalformedBody(f"the body is not valid JSON: {reason}", remedy="send one JSON value in UTF-8") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("an object has the same key twice")
    return content


def _check(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH + 1):
        for item in level:
            for text in item if isinstance(item, dict) else (item,):
                if isinstance(text, str):
                    text.encode()  # half a surrogate pair cannot be written again; UnicodeEncodeError is a ValueError
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {DEPTH} levels")
