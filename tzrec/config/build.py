"""Fills a message from a syntax tree, checking it against the schema.

All problems are collected. Semantics are those of protobuf's ``text_format.Merge`` and
``json_format``: a scalar that is given twice keeps the last value, a message is merged.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tzrec.config.messages import STRUCT, AnyDescriptor, AnyField, is_map, is_message, is_repeated
from tzrec.config.problem import Problem, warning
from tzrec.config.schema import owners
from tzrec.config.syntax import Block, Field, Items, Scalar, Value
from tzrec.errors import did_you_mean

_F = FieldDescriptor
_INTEGERS: Mapping[int, tuple[int, int]] = {
    _F.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    _F.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    _F.CPPTYPE_UINT32: (0, 2**32 - 1),
    _F.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_TRUE = ("true", "True", "t", "1")
_FALSE = ("false", "False", "f", "0")
_FLOAT_MAX = 3.4028235677973366e38


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How literal a tree is to be taken.

    Attributes:
        json: names may be camelCase, numbers and enums may be strings, maps are objects.
        bare_strings: words count as strings.
        allow_unknown: unknown fields are warnings.
    """

    json: bool = False
    bare_strings: bool = False
    allow_unknown: bool = False


TEXT = Dialect()
JSON = Dialect(json=True)


class Builder:
    """Fills messages from trees.

    Attributes:
        problems: everything found so far.
        lines: config path → line, of everything that was set.
    """

    def __init__(self, dialect: Dialect = TEXT) -> None:
        self.dialect = dialect
        self.problems: list[Problem] = []
        self.lines: dict[str, int] = {}

    def fill(self, message: Message, block: Block, path: str = "") -> None:
        """Merges ``block`` into ``message``, whose config path is ``path``."""
        if message.DESCRIPTOR.full_name == STRUCT and not _is_spelt_out(block):
            self._fill_struct(message, block, path)
            return
        given: dict[str, int] = {}
        for item in block.fields:
            field = self._field(message.DESCRIPTOR, item, path)
            if field is None:
                continue
            here = f"{path}.{field.name}" if path else field.name
            if self._allowed(message, field, item, here, given):
                self.set_field(message, field, item.value, here)
            given[field.name] = item.line

    def _field(self, descriptor: AnyDescriptor, item: Field, path: str) -> AnyField | None:
        field = descriptor.fields_by_name.get(item.name)
        if field is None and self.dialect.json:
            field = descriptor.fields_by_camelcase_name.get(item.name)
        if field is None:
            here = f"{path}.{item.name}" if path else item.name
            self.lines.setdefault(here, item.line)
            names = [known.name for known in descriptor.fields]
            if self.dialect.json and item.name.lower() != item.name:
                names = [known.camelcase_name for known in descriptor.fields]
            what = f"{descriptor.name} has no field {item.name!r}{did_you_mean(item.name, names)}"
            if self.dialect.allow_unknown:
                self.problems.append(warning(here, f"{what} (left out)"))
            else:
                self.problems.append(Problem(here, what, _where_else(item.name)))
        return field

    def _allowed(
        self,
        message: Message,
        field: AnyField,
        item: Field,
        here: str,
        given: dict[str, int],
    ) -> bool:
        if is_repeated(field):
            return True
        if field.name in given:
            kept = "both are merged" if is_message(field) else "the last one counts"
            self.problems.append(
                warning(here, f"given twice, before in line {given[field.name]}; {kept}")
            )
        oneof = field.containing_oneof
        if oneof is not None:
            other = next((f.name for f in oneof.fields if f.name in given and f != field), None)
            if other is not None:
                self.lines[here] = item.line
                self.problems.append(
                    Problem(
                        here,
                        f"{other!r} was already chosen in line {given[other]}, "
                        f"and only one {oneof.name} is possible",
                        "remove one of the two",
                    )
                )
                return False
        return True

    def set_field(self, message: Message, field: AnyField, value: Value, here: str) -> None:
        """Sets a field, or appends all elements of a repeated one."""
        if self.dialect.json and isinstance(value, Scalar) and _is_null(value):
            return
        if is_map(field):
            self._set_map(message, field, value, here)
        elif is_repeated(field):
            elements = value.values if isinstance(value, Items) else [value]
            self.lines.setdefault(here, value.line)
            for element in elements:
                self.add(message, field, element, here)
        elif isinstance(value, Items):
            self._wrong(here, value.line, f"must be {_kind(field)}, not a list")
        elif is_message(field):
            if isinstance(value, Block):
                self.lines[here] = value.line
                child = getattr(message, field.name)
                child.SetInParent()
                self.fill(child, value, here)
            else:
                what = f"is a message: write {field.name} {{ ... }}"
                self._wrong(here, value.line, what)
        else:
            self.lines[here] = value.line
            scalar = self.scalar(field, value, here)
            if scalar is not None:
                setattr(message, field.name, scalar)

    def add(self, message: Message, field: AnyField, value: Value, here: str) -> None:
        """Appends one element to a repeated field."""
        target = getattr(message, field.name)
        where = f"{here}[{len(target)}]"
        self.lines[where] = value.line
        if not is_message(field):
            scalar = self.scalar(field, value, where)
            # A wrong element still takes its place, so that the following keep their index.
            target.append(_zero(field) if scalar is None else scalar)
        elif isinstance(value, Block):
            self.fill(target.add(), value, where)
        else:
            target.add()
            self._wrong(where, value.line, f"is a message: write {field.name} {{ ... }}")

    def _set_map(self, message: Message, field: AnyField, value: Value, here: str) -> None:
        self.lines.setdefault(here, value.line)
        if self.dialect.json and isinstance(value, Block):
            pairs = [(Scalar(f.name, "string", f.line), f.value) for f in value.fields]
        else:
            entries = value.values if isinstance(value, Items) else [value]
            pairs = [pair for entry in entries for pair in self._map_entry(entry, here)]
        entry_fields = field.message_type.fields_by_name
        target = getattr(message, field.name)
        for key_value, item in pairs:
            key = self.scalar(entry_fields["key"], key_value, f"{here}.key")
            if is_message(entry_fields["value"]):
                if key is not None and isinstance(item, Block):
                    self.fill(target[key], item, f"{here}[{key}]")
            else:
                number = self.scalar(entry_fields["value"], item, f"{here}[{key_value.text}]")
                if key is not None and number is not None:
                    target[key] = number

    def _map_entry(self, entry: Value, here: str) -> list[tuple[Scalar, Value]]:
        fields = {f.name: f.value for f in entry.fields} if isinstance(entry, Block) else {}
        key, item = fields.get("key"), fields.get("value")
        if set(fields) != {"key", "value"} or not isinstance(key, Scalar) or item is None:
            self._wrong(here, entry.line, 'is a map: write { key: "a" value: 1 } per entry')
            return []
        return [(key, item)]

    def scalar(self, field: AnyField, value: Value, here: str) -> Any:
        """Returns the value of a scalar field, or None and a problem."""
        if not isinstance(value, Scalar):
            self._wrong(here, value.line, f"must be {_kind(field)}, not a {_shape(value)}")
            return None
        result = _convert(field, value, self.dialect)
        if isinstance(result, _Wrong):
            self._wrong(here, value.line, result.what, result.hint)
            return None
        return result

    def _wrong(self, here: str, line: int, what: str, hint: str = "") -> None:
        self.lines[here] = line
        self.problems.append(Problem(here, what, hint))

    def _fill_struct(self, message: Any, block: Block, path: str) -> None:
        for item in block.fields:
            here = f"{path}.{item.name}" if path else item.name
            self._fill_struct_value(message.fields[item.name], item.value, here)

    def _fill_struct_value(self, target: Any, value: Value, here: str) -> None:
        self.lines[here] = value.line
        if isinstance(value, Block):
            target.struct_value.SetInParent()
            self._fill_struct(target.struct_value, value, here)
        elif isinstance(value, Items):
            target.list_value.SetInParent()
            for index, element in enumerate(value.values):
                self._fill_struct_value(target.list_value.values.add(), element, f"{here}[{index}]")
        elif value.kind == "string":
            target.string_value = value.text
        elif value.kind == "number":
            target.number_value = float(value.text.rstrip("fF"))
        elif value.text in ("true", "True", "false", "False"):
            target.bool_value = value.text.lower() == "true"
        elif value.text == "null":
            target.null_value = 0
        elif self.dialect.bare_strings:
            target.string_value = value.text
        else:
            self._wrong(here, value.line, f"text needs quotes: {value.text!r}")


@dataclasses.dataclass
class _Wrong:
    what: str
    hint: str = ""


def _convert(field: AnyField, value: Scalar, dialect: Dialect) -> Any:
    kind = field.cpp_type
    if kind == _F.CPPTYPE_STRING:
        if value.kind == "string" or dialect.bare_strings:
            return value.text
        return _Wrong(f'must be text in quotes: "{value.text}"')
    if value.kind == "string" and not (dialect.json or dialect.bare_strings):
        return _Wrong(f"must be {_kind(field)}, not text", f"write {value.text} without quotes")
    if kind == _F.CPPTYPE_BOOL:
        return _boolean(value)
    if kind == _F.CPPTYPE_ENUM:
        return _enum(field, value)
    if kind in _INTEGERS:
        return _integer(value, *_INTEGERS[kind], json=dialect.json)
    return _float(value, kind == _F.CPPTYPE_FLOAT)


def _boolean(value: Scalar) -> Any:
    if value.text in _TRUE:
        return True
    if value.text in _FALSE:
        return False
    return _Wrong(f"must be true or false, not {value.text}")


def _enum(field: AnyField, value: Scalar) -> Any:
    members = field.enum_type.values_by_name
    if value.text in members:
        return members[value.text].number
    numbers = {str(number): number for number in field.enum_type.values_by_number}
    if value.text in numbers:
        return numbers[value.text]
    return _Wrong(
        f"{value.text!r} is not a {field.enum_type.name}{did_you_mean(value.text, members)}",
        f"one of {', '.join(list(members)[:8])}{', ...' if len(members) > 8 else ''}",
    )


def _integer(value: Scalar, least: int, most: int, *, json: bool) -> Any:
    text = value.text
    if re.fullmatch(r"-?0[0-7]+", text) and not json:
        number = int(text, 8)
    elif re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|0|[1-9]\d*)", text):
        number = int(text, 0)
    elif json and re.fullmatch(r"-?\d+(\.0+)?([eE]\+?\d+)?", text):
        number = int(float(text))
    else:
        return _Wrong(f"must be an integer, not {text}")
    if not least <= number <= most:
        bound = f"at least {least}" if number < least else f"at most {most}"
        return _Wrong(f"{number} is out of range, must be {bound}")
    return number


def _float(value: Scalar, single: bool) -> Any:
    text = value.text.lower()
    if value.kind != "number" and not re.fullmatch(r"-?(inf|infinity|nan)", text):
        try:
            return float(text)
        except ValueError:
            return _Wrong(f"must be a number, not {value.text}")
    if re.fullmatch(r"-?0x[0-9a-f]+|-?0[0-7]+", text):
        return _Wrong(f"must be a decimal number, not {value.text}")
    number = float(text.removesuffix("f") if "inf" not in text else text)
    if single and math.isfinite(number) and abs(number) > _FLOAT_MAX:
        return _Wrong(f"{value.text} is out of range of a 32-bit float")
    return number


def _kind(field: AnyField) -> str:
    if is_message(field):
        return str(field.message_type.name)
    if field.cpp_type in _INTEGERS:
        return "an integer"
    if field.cpp_type == _F.CPPTYPE_ENUM:
        return f"one of {', '.join(field.enum_type.values_by_name)}"
    names = {_F.CPPTYPE_STRING: "text", _F.CPPTYPE_BOOL: "true or false"}
    return names.get(field.cpp_type, "a number")


def _shape(value: Value) -> str:
    return "list" if isinstance(value, Items) else "message { ... }"


def _zero(field: AnyField) -> Any:
    if field.cpp_type == _F.CPPTYPE_STRING:
        return ""
    return field.enum_type.values[0].number if field.cpp_type == _F.CPPTYPE_ENUM else 0


def _is_null(value: Scalar) -> bool:
    return value.kind == "word" and value.text == "null"


def _is_spelt_out(block: Block) -> bool:
    """Tells whether a Struct is written as ``fields { key: "a" value { ... } }``."""
    return any(
        item.name == "fields"
        and isinstance(item.value, Block)
        and {inner.name for inner in item.value.fields} == {"key", "value"}
        for item in block.fields
    )


def _where_else(name: str) -> str:
    found = owners(name)
    if not found:
        return ""
    return f"{name!r} is a field of {', '.join(found[:3])}"
