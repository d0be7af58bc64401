"""Protobuf messages, reached the same way on every protobuf major from 4 on."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

# Descriptors of a field and of a message: their classes and stubs differ between protobuf majors.
AnyField: TypeAlias = Any
AnyDescriptor: TypeAlias = Any

STRUCT = "google.protobuf.Struct"


def is_repeated(field: AnyField) -> bool:
    """Tells whether a field is repeated (maps are)."""
    known = getattr(field, "is_repeated", None)
    return bool(known) if known is not None else field.label == FieldDescriptor.LABEL_REPEATED


def is_required(field: AnyField) -> bool:
    """Tells whether a field is marked ``required``."""
    known = getattr(field, "is_required", None)
    return bool(known) if known is not None else field.label == FieldDescriptor.LABEL_REQUIRED


def is_message(field: AnyField) -> bool:
    """Tells whether a field holds messages (maps do)."""
    return bool(field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE)


def is_map(field: AnyField) -> bool:
    """Tells whether a field is a map."""
    return is_message(field) and bool(field.message_type.GetOptions().map_entry)


def which_field(message: Message, oneof: str) -> str | None:
    """Returns the name of the member of ``oneof`` that is set, or None."""
    name: str | None = message.WhichOneof(oneof)
    return name


def which_msg(message: Message, oneof: str) -> str:
    """Returns the message type of the member of ``oneof`` that is set (``"DeepFM"``), or ``""``."""
    name = which_field(message, oneof)
    if name is None:
        return ""
    field: AnyField = message.DESCRIPTOR.fields_by_name[name]
    return str(field.message_type.name)


def config_to_kwargs(message: Message) -> dict[str, Any]:
    """Returns a message as nested keyword arguments.

    Scalars that are not written get their proto2 default; messages and members of a oneof
    only appear when they are set; repeated fields and maps are lists and dictionaries; enums
    are their names; 32-bit floats are the shortest decimal that means them (0.1, not
    0.10000000149).
    """
    if message.DESCRIPTOR.full_name == STRUCT:
        return {key: _struct_value(value) for key, value in message.fields.items()}  # type: ignore[attr-defined]
    kwargs: dict[str, Any] = {}
    fields: list[AnyField] = list(message.DESCRIPTOR.fields)
    for field in fields:
        value = getattr(message, field.name)
        if is_map(field):
            item = field.message_type.fields_by_name["value"]
            kwargs[field.name] = {key: _plain(item, value[key]) for key in value}
        elif is_repeated(field):
            kwargs[field.name] = [_plain(field, element) for element in value]
        elif message.HasField(field.name) or not (
            is_message(field) or field.containing_oneof is not None
        ):
            kwargs[field.name] = _plain(field, value)
    return kwargs


def _plain(field: AnyField, value: Any) -> Any:
    if is_message(field):
        return config_to_kwargs(value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return field.enum_type.values_by_number[value].name
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return shortest_float(value)
    return value


def _struct_value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return config_to_kwargs(value.struct_value)
    if kind == "list_value":
        return [_struct_value(element) for element in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return None if kind in (None, "null_value") else getattr(value, kind)


def shortest_float(value: float) -> float:
    """Returns the shortest decimal that is the same 32-bit float as ``value``."""
    if value != value or value in (float("inf"), float("-inf")):
        return value
    packed = struct.pack("<f", value)
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        # A rounded-up largest float does not fit any more.
        if abs(short) <= 3.4028234663852886e38 and struct.pack("<f", short) == packed:
            return short
    return value


def children(message: Message, path: str = "") -> Iterator[tuple[str, AnyField, Message]]:
    """Yields ``(path, field, message)`` of every message set directly inside ``message``."""
    fields: list[AnyField] = list(message.DESCRIPTOR.fields)
    for field in fields:
        if not is_message(field) or is_map(field):
            continue
        here = f"{path}.{field.name}" if path else field.name
        if is_repeated(field):
            for index, element in enumerate(getattr(message, field.name)):
                yield f"{here}[{index}]", field, element
        elif message.HasField(field.name):
            yield here, field, getattr(message, field.name)


def walk(message: Message, path: str = "") -> Iterator[tuple[str, Message]]:
    """Yields ``(path, message)`` for ``message`` and every message set inside it."""
    yield path, message
    if message.DESCRIPTOR.full_name == STRUCT:
        return
    for child_path, _, child in children(message, path):
        yield from walk(child, child_path)
