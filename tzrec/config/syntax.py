"""Reads protobuf text format into a tree that remembers lines; knows no schema.

Grammar: protobuf.dev/reference/protobuf/textformat-spec. Our own parser, because protobuf's
stops at the first error and keeps no positions.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from google.protobuf import text_encoding

ScalarKind = Literal["string", "number", "word"]


@dataclasses.dataclass
class Scalar:
    """A literal. ``text`` is the decoded string, or the token of a number or a word."""

    text: str
    kind: ScalarKind
    line: int


@dataclasses.dataclass
class Block:
    """``{ ... }``: the fields of one message, in order."""

    fields: list[Field]
    line: int


@dataclasses.dataclass
class Items:
    """``[a, b]``."""

    values: list[Value]
    line: int


@dataclasses.dataclass
class Field:
    """``name: value`` or ``name { ... }``."""

    name: str
    value: Value
    line: int


Value = Scalar | Block | Items


class TextSyntaxError(Exception):
    """The text is not well formed.

    Args:
        what: what was expected and what was found.
        line: where, counted from 1.
        path: field names open at that point.
        hint: the cure.
    """

    def __init__(self, what: str, line: int, path: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.line = line
        self.path = path
        self.hint = hint


_TOKEN = re.compile(
    r"""(?P<skip>(?:\s+|\#[^\n]*)+)
      |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      |(?P<number>-?\s*(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?)(?![\w.]))
      |(?P<word>-?[A-Za-z_][\w]*(?:[./][\w]+)*)
      |(?P<mark>[{}<>\[\]:,;])
      |(?P<bad>[\w.+\-]+|.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclasses.dataclass
class _Token:
    kind: str
    text: str
    line: int
    indent: int = -1  # columns before it, if it is the first on its line


@dataclasses.dataclass
class _Open:
    """A field whose value is being read."""

    name: str
    line: int
    indent: int


def _tokens(text: str) -> list[_Token]:
    tokens = []
    line = 1
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        token = match.group()
        if kind != "skip":
            before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
            indent = -1 if before.strip() else len(before.expandtabs())
            tokens.append(_Token(kind, token, line, indent))
        line += token.count("\n")
    tokens.append(_Token("end", "", max(1, text.rstrip().count("\n") + 1)))
    return tokens


def parse_text(text: str) -> Block:
    """Parses a whole file.

    Raises:
        TextSyntaxError: the text is not well formed.
    """
    parser = _Parser(text)
    fields = parser.fields(until="")
    return Block(fields, 1)


def parse_value(text: str) -> Value:
    """Parses what may stand after ``name:``.

    Raises:
        TextSyntaxError: the text is not one value.
    """
    parser = _Parser(text)
    value = parser.value()
    if parser.peek.kind != "end":
        raise parser.problem(f"unexpected {parser.peek.text!r} after the value")
    return value


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.position = 0
        self.open: list[_Open] = []
        # The first block with a field inside that is indented like a neighbour of it.
        self.suspect: tuple[str, _Open, _Token] | None = None

    @property
    def peek(self) -> _Token:
        return self.tokens[self.position]

    @property
    def path(self) -> str:
        return ".".join(field.name for field in self.open if field.name)

    def take(self, mark: str = "") -> _Token | None:
        token = self.peek
        if mark and (token.kind != "mark" or token.text != mark):
            return None
        self.position += 1
        return token

    def problem(self, what: str, line: int | None = None, hint: str = "") -> TextSyntaxError:
        return TextSyntaxError(what, self.peek.line if line is None else line, self.path, hint)

    def fields(self, until: str) -> list[Field]:
        found: list[Field] = []
        while True:
            token = self.peek
            if token.kind == "end":
                if until:
                    raise self.never_closed(until)
                return found
            if token.kind == "mark" and token.text in ("}", ">"):
                if token.text == until:
                    self.take()
                    return found
                raise self.problem(
                    f"unexpected {token.text!r}"
                    + (f", expected {until!r}" if until else ": nothing is open here")
                )
            if self.open and self.suspect is None and 0 <= token.indent <= self.open[-1].indent:
                self.suspect = (self.path, self.open[-1], token)
            found.append(self.field())

    def never_closed(self, until: str) -> TextSyntaxError:
        # The block that is open at the end is only the victim when a brace is missing further
        # up; the indentation says where.
        path, culprit, hint = self.path, self.open[-1], ""
        if self.suspect:
            path, culprit, near = self.suspect
            hint = f"by the indentation it belongs before {near.text!r} in line {near.line}"
        what = f"the {until!r} of {culprit.name!r} (opened in line {culprit.line}) is missing"
        return TextSyntaxError(what, culprit.line, path, hint)

    def field(self) -> Field:
        name = self.peek
        if name.kind == "mark" and name.text == "[":
            raise self.problem("extensions ([name] fields) are not part of this schema")
        if name.kind not in ("word", "number"):
            raise self.unexpected("a field name")
        self.take()
        self.open.append(_Open(name.text, name.line, name.indent))
        colon = self.take(":")
        if not colon and self.peek.text not in ("{", "<", "["):
            if name.kind == "number":
                raise self.problem(f"expected a field name, found {name.text!r}", name.line)
            raise self.problem(f"expected ':' or '{{' after {name.text!r}, found {self.found()}")
        value = self.value()
        self.open.pop()
        if not self.take(","):
            self.take(";")
        return Field(name.text, value, name.line)

    def value(self) -> Value:
        token = self.peek
        if token.kind == "mark" and token.text in ("{", "<"):
            self.take()
            if not self.open:
                self.open.append(_Open("", token.line, -1))
            return Block(self.fields("}" if token.text == "{" else ">"), token.line)
        if token.kind == "mark" and token.text == "[":
            return self.items()
        if token.kind == "string":
            return self.string()
        if token.kind == "number":
            self.take()
            return Scalar(re.sub(r"\s", "", token.text), "number", token.line)
        if token.kind == "word":
            self.take()
            return Scalar(token.text, "word", token.line)
        raise self.unexpected("a value")

    def items(self) -> Items:
        start = self.take()
        assert start is not None
        values: list[Value] = []
        while not self.take("]"):
            if values and not self.take(","):
                raise self.problem(
                    f"expected ',' or ']' in the list opened at line {start.line}, "
                    f"found {self.found()}"
                )
            if values and self.take("]"):  # a comma before the bracket
                return Items(values, start.line)
            values.append(self.value())
        return Items(values, start.line)

    def string(self) -> Scalar:
        line = self.peek.line
        parts = []
        while self.peek.kind == "string":
            token = self.take()
            assert token is not None
            parts.append(token.text[1:-1])
        try:
            text = b"".join(text_encoding.CUnescape(part) for part in parts).decode()
        except ValueError:
            raise self.problem("the string has a wrong escape or is not UTF-8", line) from None
        return Scalar(text, "string", line)

    def unexpected(self, what: str) -> TextSyntaxError:
        token = self.peek
        if token.kind == "bad" and token.text in "\"'":
            return self.problem(f"the string that starts with {token.text} has no end on its line")
        return self.problem(f"expected {what}, found {self.found()}")

    def found(self) -> str:
        return "the end of the file" if self.peek.kind == "end" else repr(self.peek.text)
