"""Expressions of ``epoch``: what the scheduler's factors are written in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locex_torch_builder.schedulers.expression import parse


@pytest.mark.parametrize(
    "text",
    [
        "0.95 ** epoch",
        "1 / (1 + 0.1 * epoch)",
        "0.5 ** (epoch // 3)",
        "epoch % 3 + 1",
        "-epoch + +3",
        "0.1 if epoch < 3 else 1e-2 if epoch <= 5 else 0.001",
        "1 if 2 < epoch and not epoch >= 5 or epoch == 7 else 0.5",
        "(epoch > 1) + (epoch != 4)",
        "min(1, epoch / 5, 0.5) * max(epoch, 2)",
        "0.5 * (1 + cos(pi * epoch / 10))",
        "abs(sin(epoch)) + sqrt(epoch) + exp(-epoch) + log(epoch + 1)",
        "lambda n: 0.9 ** n",
        "  1  ",
    ],
)
def test_an_expression_means_what_python_means(text):
    names = {name: getattr(math, name) for name in ("exp", "log", "sqrt", "cos", "sin", "pi")}
    written = text.strip()
    theirs = eval(written if written.startswith("lambda") else f"lambda epoch: {written}", names)
    ours = parse(text)
    assert [ours(epoch) for epoch in range(10)] == [theirs(epoch) for epoch in range(10)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "epoch +",
        "x",
        "True",
        "'1'",
        "epoch.real",
        "epoch[0]",
        "[epoch]",
        "__import__('os')",
        "open(0)",
        "min(*epoch)",
        "min(epoch)",
        "cos(epoch, 1)",
        "cos(x=1)",
        "(lambda: 1)()",
        "lambda: 1",
        "lambda a, b: a",
        "lambda a=1: a",
        "lambda *a: 1",
        "lambda a: epoch",
        "1 < epoch < 3",
        "epoch is 1",
        "epoch in 1",
        "~epoch",
        "epoch << 3",
        "epoch @ 2",
        "(epoch := 3)",
        "f'{epoch}'",
        "1j",
        "1" + "+1" * 200,
        "(" * 120 + "1" + ")" * 120,
        "epoch; 1",
        "[x for x in epoch]",
        "\x00",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"expression|lambda"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "9 ** 9 ** 9 ** 9",
        "((1 < 2) + (1 < 2)) ** 99 ** 99 ** 99",
        "1 / epoch",
        "(-8) ** 0.5",
        "(-8) ** 0.5 < 1",
        "log(epoch)",
        "exp(1e9)",
        "1e308 * 10",
        "epoch % 0",
        "sqrt(-1)",
        "0 ** -1",
    ],
)
def test_what_has_no_finite_value_is_an_error_at_once(text):
    function = parse(text)
    with pytest.raises((ArithmeticError, ValueError)):
        function(0)


@given(st.text(max_size=60) | st.text("epoch()+-*/%<>=! 0123456789.,minaxcos", max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_an_expression_or_is_refused(text):
    try:
        function = parse(text)
    except ValueError:
        return
    try:
        assert math.isfinite(function(3))
    except (ArithmeticError, ValueError):
        return
