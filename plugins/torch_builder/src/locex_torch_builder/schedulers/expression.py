"""Functions of one number that users write as text, such as ``0.95 ** epoch``; never evaluated as Python.

The text is parsed into a tree of which only arithmetic is admitted. All numbers are floats, which bounds the time and
the memory of every operation whatever the text says.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

Function: TypeAlias = Callable[[float], float]

LONGEST = 200
"""Characters of an expression; the parser's recursion stays far below its limit."""

_ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_UNARY: dict[type[ast.AST], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
_FUNCTIONS: dict[str, tuple[Callable[..., float], int]] = {
    "min": (min, 9),
    "max": (max, 9),
    "abs": (abs, 1),
    "exp": (math.exp, 1),
    "log": (math.log, 1),
    "sqrt": (math.sqrt, 1),
    "cos": (math.cos, 1),
    "sin": (math.sin, 1),
}
"""Each with the most arguments that it takes."""


def parse(text: str, variable: str = "epoch") -> Function:
    """Return the function that a text describes; raise `ValueError` with the reason where it describes none.

    The function raises `ArithmeticError` or `ValueError` where it has no finite value. ``lambda n: …`` is accepted
    too, with the name that it gives to its argument.
    """
    if len(text) > LONGEST:
        raise ValueError(f"an expression has at most {LONGEST} characters")
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"not an expression of {variable}: {text!r}") from None
    if isinstance(body, ast.Lambda):
        variable, body = _argument(body), body.body
    value = _Reader(variable).read(body)

    def function(number: float) -> float:
        try:
            result = value(float(number))
        except TypeError:  # a root of a negative number is complex, and cannot be compared
            result = math.nan
        if not isinstance(result, float) or not math.isfinite(result):
            raise ValueError(f"{text} has no finite value where {variable} is {number}")
        return result

    return function


def _argument(written: ast.Lambda) -> str:
    names = [argument.arg for argument in written.args.args]
    if len(names) != 1 or ast.unparse(written.args) != names[0]:
        raise ValueError("a lambda takes one argument here")
    return names[0]


class _Reader:
    """Turns a tree into nested functions, node by node."""

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def read(self, node: ast.AST) -> Function:
        function = self._term(node) or self._operation(node) or self._choice(node)
        if function is None:
            raise ValueError(f"not allowed in an expression: {ast.unparse(node)}")
        return function

    def _term(self, node: ast.AST) -> Function | None:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return self._constant(number)
            case ast.Name(id=name):
                return self._name(name)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self._call(name, arguments)
        return None

    def _operation(self, node: ast.AST) -> Function | None:
        match node:
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return self._binary(_ARITHMETIC[type(op)], left, right)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
                compared = self._binary(_COMPARISONS[type(op)], left, right)
                return lambda number: float(compared(number))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                return self._unary(_UNARY[type(op)], operand)
        return None

    def _choice(self, node: ast.AST) -> Function | None:
        match node:
            case ast.BoolOp(op=op, values=values):
                combine = all if isinstance(op, ast.And) else any
                parts = [self.read(value) for value in values]
                return lambda number: float(combine(part(number) for part in parts))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                condition, yes, no = self.read(test), self.read(body), self.read(orelse)
                return lambda number: yes(number) if condition(number) else no(number)
        return None

    def _constant(self, number: float) -> Function:
        try:
            constant = float(number)
        except OverflowError:
            raise ValueError("a number in an expression is too large") from None
        return lambda _: constant

    def _name(self, name: str) -> Function:
        if name == self._variable:
            return lambda number: number
        if name == "pi":
            return lambda _: math.pi
        known = ", ".join([self._variable, "pi", *_FUNCTIONS])
        raise ValueError(f"unknown name in an expression: {name}; known are {known}")

    def _binary(self, apply: Callable[[Any, Any], Any], left: ast.AST, right: ast.AST) -> Function:
        first, second = self.read(left), self.read(right)
        return lambda number: apply(first(number), second(number))

    def _unary(self, apply: Callable[[Any], Any], operand: ast.AST) -> Function:
        inner = self.read(operand)
        return lambda number: float(apply(inner(number)))

    def _call(self, name: str, arguments: list[ast.expr]) -> Function:
        apply, most = _FUNCTIONS.get(name, (None, 0))
        fewest = 1 if most == 1 else 2
        if apply is None or not fewest <= len(arguments) <= most:
            raise ValueError(f"not allowed in an expression: {name} of {len(arguments)}")
        inner = [self.read(argument) for argument in arguments]
        return lambda number: apply(*(value(number) for value in inner))
