from __future__ import annotations

import pytest

from locex_torch_builder.exported.sizes import is_harmless


@pytest.mark.parametrize(
    "text",
    [
        "s77",
        "2*s77 + 1",
        "s77//2",
        "Symbol('s77', positive=True, integer=True)",
        "Add(Mul(Integer(2), Symbol('s77', positive=True, integer=True)), Integer(1))",
        "FloorDiv(Symbol('s77', integer=True), Integer(2))",
        "Pow(Symbol('s77', integer=True), Integer(2))",
        "Max(1, u0)",
    ],
)
def test_sizes_are_admitted(text):
    assert is_harmless(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s77.__class__",
        "Symbol('s77').func",
        "Symbol('__import__')",
        "Symbol('s77', integer=exec)",
        "eval(Integer(1))",
        "Function('x')(1)",
        "(lambda: 1)()",
        "[s77 for s77 in s77]",
        "s77 if s77 else 1",
        "Pow(Pow(Integer(9), Integer(8)), Integer(8))",
        "Pow(Integer(9), Integer(99))",
        "9**(9**9)",
        "u999999999",
        "Symbol('s77')[0]",
        "f'{s77}'",
        "1" * 3000,
        "(" * 1000,
        str(2**70),
    ],
)
def test_whatever_is_no_size_is_refused(text):
    assert not is_harmless(text)
