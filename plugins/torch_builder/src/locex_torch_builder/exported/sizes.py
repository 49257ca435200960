"""Expressions of sizes, as sympy writes them: ``FloorDiv(Symbol('s77', integer=True), Integer(2))`` or ``s77//2``."""

from __future__ import annotations

import ast
import re

MAX_INTEGER = 2**63
_MAX_LENGTH, _MAX_POWER = 2000, 8
_SYMBOL = re.compile(r"[a-z]{1,8}\d{1,6}")
_NUMBERS = {"Integer", "Float", "Rational"}
_FUNCTIONS = {
    *("Add", "Mul", "Max", "Min", "Mod", "Eq", "Ne", "Lt", "Le", "Gt", "Ge"),
    *("FloorDiv", "ModularIndexing", "PythonMod", "CleanDiv", "CeilDiv", "CeilToInt", "FloorToInt", "TruncToInt"),
    *("Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan"),
}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)


def is_harmless(text: str) -> bool:
    """Return whether evaluating an expression gives a size and nothing else: no attribute, no growth without bound."""
    try:
        return len(text) <= _MAX_LENGTH and _fits(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _fits(node: ast.expr) -> bool:  # noqa: PLR0911 -- one for each form
    match node:
        case ast.Constant(value=int() as value):
            return abs(value) < MAX_INTEGER
        case ast.Name(id=name):
            return bool(_SYMBOL.fullmatch(name))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _fits(operand)
        case ast.Compare(left=left, comparators=others):
            return all(_fits(part) for part in (left, *others))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _fits_power([left, right])
        case ast.BinOp(left=left, op=operator, right=right):
            return isinstance(operator, _OPERATORS) and _fits(left) and _fits(right)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
            return _fits_call(name, arguments, keywords)
    return False


def _fits_call(name: str, arguments: list[ast.expr], keywords: list[ast.keyword]) -> bool:
    if name == "Symbol":
        known = len(arguments) == 1 and isinstance(arguments[0], ast.Constant)
        assumed = all(isinstance(one.value, ast.Constant) and isinstance(one.value.value, bool) for one in keywords)
        return known and assumed and bool(_SYMBOL.fullmatch(str(arguments[0].value)))  # type: ignore[attr-defined]
    if keywords:
        return False
    if name in {"Pow", "PowByNatural"}:
        return _fits_power(arguments)
    return name in _FUNCTIONS | _NUMBERS and all(_fits(argument) for argument in arguments)


def _fits_power(arguments: list[ast.expr]) -> bool:
    """Admit a small power of what is none itself: ``9**9**9`` would not end."""
    if len(arguments) != 2:  # noqa: PLR2004 -- base and exponent
        return False
    base, exponent = arguments
    if isinstance(exponent, ast.Call) and len(exponent.args) == 1:  # Integer(2)
        exponent = exponent.args[0]
    if isinstance(exponent, ast.UnaryOp):
        exponent = exponent.operand
    small = isinstance(exponent, ast.Constant) and type(exponent.value) is int and abs(exponent.value) <= _MAX_POWER
    return small and "Pow" not in ast.dump(base) and _fits(base)
