"""Text → syntax tree.

Operators, the weakest first; those of a line group from the left, ``^`` and ``? :`` from the
right::

    ? :
    ||
    &&
    |
    &
    <=  >=  !=  ==  >  <
    +  -
    *  /
    unary -  +  !
    ^

A minus before a power applies to the power: ``-2^2`` is -4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tzrec.errors import ConfigError, did_you_mean
from tzrec.fg.expression.functions import CONSTANTS, FUNCTIONS, VECTOR_FUNCTIONS


@dataclass(frozen=True)
class Number:
    """A literal."""

    value: float


@dataclass(frozen=True)
class Variable:
    """A name that is looked up when the expression is evaluated."""

    name: str


@dataclass(frozen=True)
class Call:
    """A function or operator of arguments; ``position`` is where its name stands."""

    name: str
    arguments: tuple[Node, ...]
    position: int


Node = Number | Variable | Call

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[^\W\d]\w*)"
    r"|(?P<symbol>\|\||&&|<=|>=|!=|==|[-+*/^()<>?:,|&!]))"
)
_LEVELS = (
    ("||",),
    ("&&",),
    ("|",),
    ("&",),
    ("<=", ">=", "!=", "==", ">", "<"),
    ("+", "-"),
    ("*", "/"),
)
_MOST_NESTED = 200


def parse(text: str) -> Node:
    """Returns the syntax tree of an expression.

    Raises:
        ConfigError: it is no expression; shows the place.
    """
    return _Parser(text).parse()


def error_at(text: str, position: int, what: str) -> ConfigError:
    """Returns an error that shows a place in an expression."""
    return ConfigError(
        f"expression {text!r}: {what} at character {position + 1}\n    {text}\n    "
        f"{' ' * position}^"
    )


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._scan()
        self._next = 0
        self._depth = 0

    def parse(self) -> Node:
        node = self._ternary()
        if self._symbol() is not None or self._next < len(self._tokens):
            raise self._error(f"{self._shown()} is one too many")
        return node

    def _scan(self) -> list[tuple[str, str, int]]:
        tokens = []
        position, end = 0, len(self._text.rstrip())
        while position < end:
            match = _TOKEN.match(self._text, position)
            if match is None:
                blanks = len(self._text) - len(self._text[position:].lstrip())
                raise error_at(self._text, blanks, f"{self._text[blanks]!r} is not understood")
            kind = str(match.lastgroup)
            tokens.append((kind, match[kind], match.start(kind)))
            position = match.end()
        if not tokens:
            raise ConfigError("an expression is empty")
        return tokens

    def _symbol(self) -> str | None:
        if self._next < len(self._tokens) and self._tokens[self._next][0] == "symbol":
            return self._tokens[self._next][1]
        return None

    def _accept(self, *symbols: str) -> str | None:
        symbol = self._symbol()
        if symbol not in symbols:
            return None
        self._next += 1
        return symbol

    def _expect(self, symbol: str, why: str) -> None:
        if self._accept(symbol) is None:
            raise self._error(f"{symbol!r} is missing {why}")

    def _place(self) -> int:
        if self._next < len(self._tokens):
            return self._tokens[self._next][2]
        return len(self._text.rstrip())

    def _shown(self) -> str:
        return repr(self._tokens[self._next][1]) if self._next < len(self._tokens) else "the end"

    def _error(self, what: str) -> ConfigError:
        return error_at(self._text, self._place(), what)

    def _ternary(self) -> Node:
        self._depth += 1
        if self._depth > _MOST_NESTED:
            raise self._error(f"more than {_MOST_NESTED} levels of nesting")
        condition = self._binary(0)
        position = self._place()
        if self._accept("?") is not None:
            first = self._ternary()
            self._expect(":", "after '?'")
            condition = Call("?:", (condition, first, self._ternary()), position)
        self._depth -= 1
        return condition

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while True:
            position = self._place()
            symbol = self._accept(*_LEVELS[level])
            if symbol is None:
                return left
            left = Call(symbol, (left, self._binary(level + 1)), position)

    def _unary(self) -> Node:
        position = self._place()
        symbol = self._accept("-", "+", "!")
        if symbol is None:
            return self._power()
        self._depth += 1
        if self._depth > _MOST_NESTED:
            raise self._error(f"more than {_MOST_NESTED} levels of nesting")
        operand = self._unary()
        self._depth -= 1
        return operand if symbol == "+" else Call(f"unary {symbol}", (operand,), position)

    def _power(self) -> Node:
        base = self._primary()
        position = self._place()
        if self._accept("^") is None:
            return base
        return Call("^", (base, self._unary()), position)

    def _primary(self) -> Node:
        if self._next >= len(self._tokens):
            raise self._error("an operand is missing")
        kind, text, position = self._tokens[self._next]
        if kind == "number":
            self._next += 1
            return Number(float(text))
        if kind == "name":
            self._next += 1
            return self._named(text, position)
        if self._accept("(") is None:
            raise self._error(f"an operand is missing before {text!r}")
        node = self._ternary()
        self._expect(")", "to close '('")
        return node

    def _named(self, name: str, position: int) -> Node:
        if self._accept("(") is None:
            return Number(CONSTANTS[name]) if name in CONSTANTS else Variable(name)
        known = {**FUNCTIONS, **VECTOR_FUNCTIONS}
        if name not in known:
            near = did_you_mean(name, known)
            raise error_at(self._text, position, f"there is no function {name!r}{near}")
        arguments: list[Node] = []
        if self._accept(")") is None:
            arguments.append(self._ternary())
            while self._accept(",") is not None:
                arguments.append(self._ternary())
            self._expect(")", f"after the arguments of {name}")
        least, most = known[name].arity
        if len(arguments) < least or (most is not None and len(arguments) > most):
            wanted = str(least) if least == most else f"at least {least}"
            what = f"{name} takes {wanted} argument(s), not {len(arguments)}"
            raise error_at(self._text, position, what)
        return Call(name, tuple(arguments), position)
