"""What a model's last layer says of its outputs: probabilities or logits."""

from __future__ import annotations

from typing import Any

_KEEP_VALUES = {"Reshape", "Flatten", "Permute", "Dropout", "GlobalAveragePooling1D", "GlobalAveragePooling2D"}
_LAYERS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "log_softmax"}


def activation_of(model: Any) -> str | None:
    """Return the name of the activation that a model of either Keras ends in, or None where it cannot be told.

    Layers that only rearrange, drop or average what the activation gave are passed over.
    """
    outputs = getattr(model, "outputs", None)
    tensor = outputs[0] if outputs else None
    while tensor is not None:
        layer, node, _ = tensor._keras_history  # noqa: SLF001 -- both Kerases' record of the graph, the only one
        kind = type(layer).__name__
        if getattr(layer, "outputs", None):  # a model within the model
            tensor = layer.outputs[0]
            continue
        name = _LAYERS.get(kind) or getattr(getattr(layer, "activation", None), "__name__", None)
        if name is not None and (kind, name) != ("Activation", "linear"):
            return str(name)
        passed = kind in _KEEP_VALUES or name is not None
        tensor = _input_of(layer, node) if passed else None
    return None


def _input_of(layer: Any, node: int) -> Any:
    inputs = layer._inbound_nodes[node].input_tensors  # noqa: SLF001 -- as above
    return inputs[0] if isinstance(inputs, list | tuple) else inputs
