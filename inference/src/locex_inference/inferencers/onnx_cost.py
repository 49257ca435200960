"""Whether the shapes of its inputs bound what an ONNX model computes and allocates, read from the file's bytes.

A loop whose turns, or a tensor whose size, is a *value* of a request runs as long and takes as much as the caller
likes: one request would stop a service that runs the model in its own process. Trials with made-up inputs do not show
it. What derives from shapes and constants alone is bounded; where the file does not tell, it counts as unbounded.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from locex.errors import InvalidModel
from locex_inference.inferencers.onnx_file import fields

_DEPTH = 64
_MODEL_GRAPH, _MODEL_FUNCTION, _FUNCTION_NODE = 7, 25, 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT = 1, 5, 11
_NAME_OF = {_GRAPH_INITIALIZER: 8, _GRAPH_INPUT: 1}
_INPUT, _OUTPUT, _OPERATOR, _ATTRIBUTE, _DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_GRAPHS = frozenset({6, 11})
_STANDARD = frozenset({"", "ai.onnx"})
_FIXED = frozenset({"Constant", "Shape", "Size"})
_ENDLESS = frozenset({"Loop", "BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"})
_SIZES: dict[str, Collection[int]] = {
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "DFT": (1,),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MelWeightMatrix": (0, 1),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Tile": (1, 2),
    "Upsample": (1,),
}
"""The inputs whose values are sizes, by operator, in any of its versions."""


@dataclass(slots=True)
class _Node:
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    operator: str = ""
    domain: str = ""
    nests: bool = False


@dataclass(slots=True)
class _Found:
    """The nodes of a graph and those nested in it, in the file's order; ``fixed`` are names of what no value decides.

    Names that are given twice, as graphs beside one another may, say nothing.
    """

    nodes: list[_Node] = field(default_factory=list)
    fixed: set[str] = field(default_factory=lambda: {""})
    names: set[str] = field(default_factory=lambda: {""})
    twice: set[str] = field(default_factory=set)

    def name(self, name: str) -> None:
        """Note that something has this name."""
        (self.twice if name in self.names else self.names).add(name)

    def unbounded(self) -> bool:
        """Tell whether the cost of any node is a matter of values."""
        self.fixed -= self.twice - {""}
        return any(_unbounded(node, self.fixed, self.twice) for node in self.nodes)


def bounded(path: Path) -> bool:
    """Return whether shapes bound what a call takes; raise `InvalidModel` for a file that is no ONNX model."""
    with path.open("rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        for number, part in _parts(view):
            found = _Found()
            if number == _MODEL_GRAPH:
                _read_graph(part, found, 0)
            elif number == _MODEL_FUNCTION:
                _read_nodes(part, _FUNCTION_NODE, found, 0)
            if found.unbounded():
                return False
    except (ValueError, IndexError):
        raise InvalidModel("the artefact is a corrupt ONNX file", remedy="export the model again") from None
    return True


def _unbounded(node: _Node, fixed: set[str], twice: set[str]) -> bool:
    """Tell whether a node's cost is a matter of values; note what it gives where that is not."""
    if node.operator in _ENDLESS:
        return True
    sizes: Sequence[str] = [node.inputs[at] for at in _SIZES.get(node.operator, ()) if at < len(node.inputs)]
    if not fixed.issuperset(sizes):
        return True
    known = node.domain in _STANDARD and not node.nests
    if known and (node.operator in _FIXED or fixed.issuperset(node.inputs)):
        fixed.update(name for name in node.outputs if name not in twice)
    return False


def _read_graph(view: memoryview, found: _Found, depth: int) -> None:
    for number, part in _parts(view):
        if number == _GRAPH_INITIALIZER or (depth and number == _GRAPH_INPUT):
            for name in [_text(name) for at, name in _parts(part) if at == _NAME_OF[number]]:
                found.name(name)
                if number == _GRAPH_INITIALIZER:
                    found.fixed.add(name)
    _read_nodes(view, _GRAPH_NODE, found, depth)


def _read_nodes(view: memoryview, at: int, found: _Found, depth: int) -> None:
    if depth > _DEPTH:
        raise ValueError("nested too deep")
    for number, part in _parts(view):
        if number == at:
            node = _Node()
            for inner, content in _parts(part):
                if inner == _ATTRIBUTE:
                    _read_attribute(content, node, found, depth)
                else:
                    _read_field(inner, content, node)
            for name in node.outputs:
                found.name(name)
            found.nodes.append(node)


def _read_field(number: int, content: memoryview, node: _Node) -> None:
    if number == _INPUT:
        node.inputs.append(_text(content))
    elif number == _OUTPUT:
        node.outputs.append(_text(content))
    elif number == _OPERATOR:
        node.operator = _text(content)
    elif number == _DOMAIN:
        node.domain = _text(content)


def _read_attribute(view: memoryview, node: _Node, found: _Found, depth: int) -> None:
    for number, graph in _parts(view):
        if number in _ATTRIBUTE_GRAPHS:
            node.nests = True
            _read_graph(graph, found, depth + 1)


def _parts(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    for number, part in fields(view):
        if isinstance(part, memoryview):
            yield number, part


def _text(view: memoryview) -> str:
    return bytes(view).decode()
