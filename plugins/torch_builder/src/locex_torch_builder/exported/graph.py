"""The graph in a torch.export archive, checked before PyTorch reads it.

PyTorch 2.13 trusts this text: it evaluates size expressions (``sympy.sympify``), runs guards (``exec``), calls any
attribute of ``torch`` that a node names, and writes names into generated Python. So nothing passes but operations of
aten, names, numbers and expressions of sizes; traces of the source and guards are dropped, which nothing needs.

The text is taken apart along PyTorch's schema (``torch/_export/serde/schema.py``), since the same key can be a field
in one place and a name that the author chose in another.
"""

from __future__ import annotations

import re
from typing import Any

from torch.utils import _pytree

from locex_torch_builder.exported.operations import check_target
from locex_torch_builder.exported.refusal import refuse
from locex_torch_builder.exported.sizes import is_harmless

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_WORD = re.compile(r"[A-Za-z0-9_.+\-]{0,512}")
_TEXT = re.compile(r"[ -~]{0,4096}")
_PLAIN = ("opset_version", "schema_version", "verifiers", "torch_version")
_BY_NAME = ("tensor_values", "sym_int_values", "sym_float_values", "sym_bool_values")
"""Parts of a graph whose keys are names of its values."""
_NAMES = {"name", "as_name"}
_REFUSED = {"as_graph", "as_operator", "as_custom_obj", "as_string_to_argument", "custom_obj", "token"}
_ONE_INPUT = _pytree.treespec_dumps(_pytree.tree_structure(((0,), {})))
_ONE_OUTPUT = _pytree.treespec_dumps(_pytree.tree_structure(0))
_MOST = 32
_INPUTS = {_pytree.treespec_dumps(_pytree.tree_structure(((0,) * count, {}))) for count in range(1, _MOST + 1)}
_OUTPUTS = {_ONE_OUTPUT} | {
    _pytree.treespec_dumps(_pytree.tree_structure(kind([0] * count)))
    for kind in (tuple, list)
    for count in range(1, _MOST + 1)
}
"""What models that are only run may take by position, and give."""


def checked_program(program: Any, *, trained: bool = True) -> dict[str, Any]:
    """Return a program's JSON (``models/model.json``) without what is not needed; raise `InvalidModel` for the rest.

    One that is ``trained`` takes and gives one tensor; others may take and give several.
    """
    module = _part(program, "graph_module")
    return {
        **{key: _checked(program[key]) for key in _PLAIN if key in program},
        "graph_module": {
            "graph": _checked_graph(_part(module, "graph")),
            "signature": _checked(_part(module, "signature")),
            "module_call_graph": [_checked_call(module.get("module_call_graph"), trained=trained)],
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "range_constraints": _checked_ranges(_part(program, "range_constraints")),
        "guards_code": [],
    }


def _part(whole: Any, key: str) -> dict[str, Any]:
    part = whole.get(key) if isinstance(whole, dict) else None
    if not isinstance(part, dict):
        refuse("its program is not that of torch.export")
    return part


def _checked_graph(graph: dict[str, Any]) -> dict[str, Any]:
    if graph.get("custom_obj_values"):
        refuse("it holds custom objects, which no plain model has")
    nodes = graph.get("nodes")
    if not isinstance(nodes, list):
        refuse("its program is not that of torch.export")
    apart = {"nodes", "custom_obj_values", *_BY_NAME}
    return {
        **_checked({key: value for key, value in graph.items() if key not in apart}),
        "nodes": [_checked_node(node) for node in nodes],
        "custom_obj_values": {},
        **{key: _checked_values(_part(graph, key)) for key in _BY_NAME},
    }


def _checked_node(node: Any) -> dict[str, Any]:
    if not isinstance(node, dict):
        refuse("its program is not that of torch.export")
    check_target(node.get("target"))
    checked: dict[str, Any] = _checked({key: value for key, value in node.items() if key != "metadata"})
    return checked | {"metadata": {}}


def _checked_values(values: dict[str, Any]) -> dict[str, Any]:
    for name, value in values.items():
        _check_name(name)
        _check(value)
    return values


def _checked_ranges(ranges: dict[str, Any]) -> dict[str, Any]:
    for expression, bounds in ranges.items():
        _check_expression(expression)
        _check(bounds)
    return ranges


def _checked_call(entries: Any, *, trained: bool) -> dict[str, Any]:
    """Return how the whole model is called; PyTorch tells it of its parts, too."""
    entry: Any = entries[0] if isinstance(entries, list) and entries else None
    signature = entry.get("signature") if isinstance(entry, dict) else None
    if not isinstance(signature, dict) or entry.get("fqn") != "":
        refuse("it does not say how its model is called")
    takes, gives = signature.get("in_spec"), signature.get("out_spec")
    if trained and (takes, gives) != (_ONE_INPUT, _ONE_OUTPUT):
        refuse("its model must take one tensor, by position, and give one tensor")
    if takes not in _INPUTS or gives not in _OUTPUTS:
        refuse(f"its model must take up to {_MOST} tensors, by position, and give a tensor, or a tuple or list of them")
    arguments = signature.get("forward_arg_names")
    for name in arguments if isinstance(arguments, list) else []:
        _check_name(name)
    specifications = {"in_spec": takes, "out_spec": gives}  # not of the alphabet of everything else
    rest = _checked({key: value for key, value in signature.items() if key not in specifications})
    return {"fqn": "", "signature": rest | specifications}


def _checked(value: Any) -> Any:
    _check(value)
    return value


def _check(value: Any) -> None:
    """Admit fields of PyTorch's schema, numbers and plain words."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_field(key, item)
    elif isinstance(value, list):
        for item in value:
            _check(item)
    elif isinstance(value, str) and not _WORD.fullmatch(value):
        refuse(f"it holds the text {value[:80]!r}")


def _check_field(key: str, item: Any) -> None:
    if key in _REFUSED and item:
        refuse(f"it holds {key}, which no plain model has")
    if key == "expr_str":
        _check_expression(item)
    elif key in _NAMES and isinstance(item, str):
        _check_name(item)
    elif key == "as_string" and isinstance(item, str):
        if not _TEXT.fullmatch(item):
            refuse(f"it holds the text {item[:80]!r}")
    else:
        _check(key)
        _check(item)


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
        refuse(f"it holds the name {str(name)[:80]!r}")


def _check_expression(text: Any) -> None:
    """Admit a short expression of sizes."""
    if not isinstance(text, str) or not is_harmless(text):
        refuse(f"it holds the size {str(text)[:80]!r}")
