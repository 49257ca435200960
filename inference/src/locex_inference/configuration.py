"""A version's configuration in the words of Triton's clients (its ``ModelConfig``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from locex.api import TensorInfo
from locex_inference.models.version import ModelVersion

_TYPES = {"BYTES": "TYPE_STRING"}


def configuration_of(version: ModelVersion) -> dict[str, Any]:
    """Return the configuration; where examples are bounded, ``dims`` leave out their axis, as Triton's do."""
    options = version.options
    bounded = options.max_batch_size > 0
    content: dict[str, Any] = {
        "name": version.name,
        "platform": version.platform,
        "backend": version.platform.partition("_")[0],
        "version_policy": {"specific": {"versions": [version.version]}} if version.version.isdecimal() else {},
        "max_batch_size": options.max_batch_size,
        "input": _tensors(version.inputs, bounded=bounded),
        "output": _tensors(version.outputs, bounded=bounded),
        "instance_group": [{"name": version.name, "kind": "KIND_CPU", "count": 1}],
        "parameters": {"sha256": {"string_value": version.digest}},
    }
    if version.batching and options.micro_batching != "off":
        content["dynamic_batching"] = {"max_queue_delay_microseconds": 0}
    return content


def _tensors(infos: Sequence[TensorInfo], *, bounded: bool) -> list[dict[str, Any]]:
    return [
        {
            "name": info.name,
            "data_type": _TYPES.get(info.datatype, f"TYPE_{info.datatype}"),
            "dims": list(info.shape[1:] if bounded else info.shape),
        }
        for info in infos
    ]
