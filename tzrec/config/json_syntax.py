"""Reads JSON into the same tree as `tzrec.config.syntax`, with lines."""

from __future__ import annotations

import json
import re
from typing import Any

from tzrec.config.syntax import Block, Field, Items, Scalar, TextSyntaxError, Value

_TOKEN = re.compile(
    r"""(?P<skip>\s+)
      |(?P<string>"(?:[^"\\\n]|\\.)*")
      |(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))
      |(?P<word>true|false|null|-?Infinity|NaN)
      |(?P<mark>[{}\[\]:,])
      |(?P<bad>\w+|.)""",
    re.VERBOSE | re.DOTALL,
)


def parse_json(text: str) -> Block:
    """Parses a JSON object.

    Raises:
        TextSyntaxError: the text is no JSON object.
    """
    reader = _Reader(text)
    value = reader.value()
    if not isinstance(value, Block):
        raise TextSyntaxError("the file must hold one JSON object { ... }", 1)
    reader.expect("end", "the end of the file")
    return value


def tree(value: Any, line: int = 1) -> Value:
    """Returns the tree of a decoded JSON value."""
    if isinstance(value, dict):
        return Block([Field(str(k), tree(v, line), line) for k, v in value.items()], line)
    if isinstance(value, list):
        return Items([tree(element, line) for element in value], line)
    if isinstance(value, str):
        return Scalar(value, "string", line)
    kind = "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else "word"
    return Scalar(json.dumps(value), "number" if kind == "number" else "word", line)


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str, int]] = []
        line = 1
        for match in _TOKEN.finditer(text):
            if match.lastgroup != "skip":
                kind = str(match.lastgroup)
                self.tokens.append((match.group() if kind == "mark" else kind, match.group(), line))
            line += match.group().count("\n")
        self.tokens.append(("end", "", line))
        self.position = 0

    def next(self) -> tuple[str, str, int]:
        self.position += 1
        return self.tokens[self.position - 1]

    def expect(self, kind: str, what: str) -> tuple[str, str, int]:
        token = self.next()
        if token[0] != kind:
            found = "the end of the file" if token[0] == "end" else repr(token[1])
            hint = ""
            if token[1] == "'":
                hint = "JSON strings need double quotes"
            raise TextSyntaxError(f"expected {what}, found {found}", token[2], hint=hint)
        return token

    def value(self) -> Value:
        kind, text, line = self.tokens[self.position]
        if kind == "{":
            return Block([self.field() for _ in self.sequence("}")], line)
        if kind == "[":
            return Items([self.value() for _ in self.sequence("]")], line)
        if kind == "string":
            self.next()
            return Scalar(_decoded(text, line), "string", line)
        if kind == "number":
            self.next()
            return Scalar(text, "number", line)
        self.expect("word", "a value")
        return Scalar(text, "word", line)

    def sequence(self, end: str) -> Any:
        """Yields once per element; the caller reads the element before the next turn."""
        self.next()
        first = True
        while self.tokens[self.position][0] != end:
            if not first:
                self.expect(",", f"',' or {end!r}")
            first = False
            yield
        self.next()

    def field(self) -> Field:
        _, text, line = self.expect("string", "a field name in double quotes")
        self.expect(":", "':'")
        return Field(_decoded(text, line), self.value(), line)


def _decoded(text: str, line: int) -> str:
    try:
        return str(json.loads(text))
    except json.JSONDecodeError as error:
        raise TextSyntaxError(f"{error.msg} in the string {text}", line) from None
