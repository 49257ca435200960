"""The message classes of every service here, from a descriptor pool of their own.

In protobuf's common pool two packages that bring the same schema under different file names cannot live in one
process, and tritonclient, KServe's client and TensorFlow bring these. What is on the wire is the same.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from locex_inference.grpc.schema import read_schema

_FILES = (
    "model_config.proto",
    "grpc_service.proto",
    "basic_inference.proto",
    "basic_inference_setup.proto",
    "tensor.proto",
    "extended_inference.proto",
)


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for name in _FILES:
        text = (files(__package__) / "proto" / name).read_text(encoding="utf-8")
        pool.Add(read_schema(text, name))
    return pool


POOL = _pool()


def message(name: str) -> Any:
    """Return the class of a message by its full name; `KeyError` for none."""
    return GetMessageClass(POOL.FindMessageTypeByName(name))


ModelInferRequest = message("inference.ModelInferRequest")
ModelInferResponse = message("inference.ModelInferResponse")
ModelStreamInferResponse = message("inference.ModelStreamInferResponse")
