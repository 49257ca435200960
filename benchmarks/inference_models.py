"""Models of the inference benchmarks: a small perceptron and a convolutional network, as ONNX files."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SEED = 5
_IR_VERSION, _OPSET = 9, 17  # what all three servers read


@dataclass(frozen=True)
class Model:
    """A model's file with one request for it."""

    name: str
    path: Path
    example: np.ndarray


def write_models(folder: Path) -> list[Model]:
    """Write both models."""
    generator = np.random.default_rng(SEED)
    mlp = folder / "mlp.onnx"
    _save(mlp, _mlp(generator), [64], [10])
    cnn = folder / "cnn.onnx"
    _save(cnn, _cnn(generator), [3, 224, 224], [10])
    return [
        Model("mlp", mlp, generator.normal(size=(1, 64)).astype(np.float32)),
        Model("cnn", cnn, generator.normal(size=(1, 3, 224, 224)).astype(np.float32)),
    ]


def write_constant(path: Path, value: float, width: int = 64) -> None:
    """Write a perceptron like the other, but for its last step: every output is ``value``, whatever comes in."""
    nodes, weights = _mlp(np.random.default_rng(SEED))
    nodes[-1].output[0] = "scores"
    weights += [_tensor("zero", np.zeros(1)), _tensor("value", np.full(1, value))]
    nodes += [
        helper.make_node("Mul", ["scores", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "value"], ["output"]),
    ]
    _save(path, (nodes, weights), [width], [10])


def _tensor(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array, np.float32), name)


def _mlp(generator: np.random.Generator) -> tuple[list, list]:
    nodes, weights, came = [], [], "input"
    sizes = [64, 128, 64, 10]
    for number, (rows, columns) in enumerate(pairwise(sizes)):
        last = number == len(sizes) - 2
        weights += [
            _tensor(f"w{number}", generator.normal(size=(rows, columns)) / rows**0.5),
            _tensor(f"b{number}", np.zeros(columns)),
        ]
        linear = "output" if last else f"linear{number}"
        nodes.append(helper.make_node("Gemm", [came, f"w{number}", f"b{number}"], [linear]))
        if not last:
            came = f"hidden{number}"
            nodes.append(helper.make_node("Relu", [linear], [came]))
    return nodes, weights


def _cnn(generator: np.random.Generator) -> tuple[list, list]:
    nodes, weights, came = [], [], "input"
    channels = [3, 32, 64, 128, 128, 256]
    for number, (rows, columns) in enumerate(pairwise(channels)):
        weights.append(_tensor(f"k{number}", generator.normal(size=(columns, rows, 3, 3)) / (9 * rows) ** 0.5))
        stride = 1 if rows == columns else 2
        nodes += [
            helper.make_node("Conv", [came, f"k{number}"], [f"c{number}"], pads=[1] * 4, strides=[stride] * 2),
            helper.make_node("Relu", [f"c{number}"], [f"r{number}"]),
        ]
        came = f"r{number}"
    weights += [_tensor("w", generator.normal(size=(channels[-1], 10))), _tensor("b", np.zeros(10))]
    nodes += [
        helper.make_node("GlobalAveragePool", [came], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["output"]),
    ]
    return nodes, weights


def _save(path: Path, graph: tuple[list, list], takes: list[int], gives: list[int]) -> None:
    nodes, weights = graph
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *takes])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", *gives])]
    made = helper.make_graph(nodes, "model", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", _OPSET)]
    onnx.save(helper.make_model(made, ir_version=_IR_VERSION, opset_imports=opsets), path)
