"""Shape expressions: arithmetic passes, everything else does not."""

from __future__ import annotations

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from xaicli.checkpoint.program import is_arithmetic, is_guard, is_symbol

SYMBOLS = frozenset({"s0", "s31", "u2"})

numbers = st.integers(-1000, 1000).map(sympy.Integer)
symbols = st.sampled_from(sorted(SYMBOLS)).map(lambda name: sympy.Symbol(name, positive=True, integer=True))
arithmetic = st.recursive(
    numbers | symbols,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a + b, inner, inner),
        st.builds(lambda a, b: a * b, inner, inner),
        st.builds(sympy.Max, inner, inner),
        st.builds(lambda a, b: sympy.Mod(a, b + 7), inner, st.integers(0, 9).map(sympy.Integer)),
    ),
    max_leaves=6,
)


@given(arithmetic)
def test_what_sympy_writes_of_arithmetic_is_admitted(expression: sympy.Expr) -> None:
    assert is_arithmetic(sympy.srepr(expression), SYMBOLS)


@given(arithmetic)
def test_a_symbol_the_graph_does_not_have_is_not(expression: sympy.Expr) -> None:
    known = {str(symbol) for symbol in expression.free_symbols}
    assert is_arithmetic(sympy.srepr(expression), frozenset()) == (not known)


INFIX = ["s0", "2*s0 + 1", "(s0 - 1)//2", "-s31 % 4", "s0**2", "s0**8", "s0**-8", str(2**63 - 1)]


@pytest.mark.parametrize("text", [*INFIX, "Symbol('s0', positive=True)"])
def test_infix_arithmetic_is_admitted(text: str) -> None:
    assert is_arithmetic(text, SYMBOLS)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "open('x')",
        "s0.__class__",
        "s0[0]",
        "[s0 for s0 in (1,)]",
        "lambda: 1",
        "(lambda: 1)()",
        "Symbol('__import__')",
        "Symbol('s0', commutative='x')",
        "Symbol('s0', **{})",
        "Symbol(*'s0')",
        "Add(*[1])",
        "Function('f')(s0)",
        "sympify('1')",
        "S('1')",
        "'text'",
        "1.5",
        str(2**63),
        "s0**9",
        "s0**-9",
        "9**99999",
        "Pow(Integer(9), Integer(99999))",
        "Pow(Integer(9), Symbol('s0'))",
        "2**s0",
        "s0 if s0 else 1",
        "s0 and s0",
        "(s0 := 1)",
        "ſ0",
        "s0;s0",
        "",
        "Add(" * 500 + ")" * 500,
        None,
        7,
    ],
)
def test_everything_else_is_refused(text: object) -> None:
    assert not is_arithmetic(text, SYMBOLS)


def test_guards_compare_sizes_only() -> None:
    assert is_guard("L['x'].size()[0] == 4")
    assert is_guard("L['args'][0].size()[1] % 2 == 0 and L['args'][0].size()[0] >= 1")
    assert not is_guard("open('x') or True")
    assert not is_guard("L['x'].numpy().tofile('y')")
    assert not is_guard("L['x'].__class__")


def test_symbols_are_named_as_torch_names_them() -> None:
    assert is_symbol("s0")
    assert not is_symbol("os")
    assert not is_symbol("s99999999")
    assert not is_symbol(None)
