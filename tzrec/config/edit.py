"""Typed edits of a config: ``--edit_config_json`` and ``--set``."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tzrec.config.build import Builder, Dialect
from tzrec.config.json_syntax import tree
from tzrec.config.messages import AnyField, is_map, is_message, is_repeated
from tzrec.config.syntax import Items, Scalar, TextSyntaxError, Value, parse_text, parse_value
from tzrec.errors import ConfigError, did_you_mean

_PART = re.compile(r"([A-Za-z_]\w*)(?:\[(.*)\])?")
_SLICE = re.compile(r"(-?\d*):(-?\d*)")
_PREDICATE = re.compile(r"([\w.]+)\s*(>=|<=|=|>|<)\s*(.*)", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    "=": lambda a, b: a == b,
}


def edit_config(config: Message, edit_json: str | dict[str, Any]) -> list[str]:
    """Applies a JSON object of edits: dotted path → value.

    Path elements are field names, with a selector on repeated fields: ``f[2]``, ``f[:]``,
    ``f[1:3]``, ``f[sub.path=value]`` (also ``>= <= > <`` on numbers); an edit applies to every
    element that matches. Several paths may be packed into one key with ``;``, and their values
    likewise. Text values are converted to the field's type; a message or a list is replaced by
    what the text says.

    Example::

        edit_config(config, '{"data_config.batch_size": 256}')
        edit_config(config, {"feature_configs[:].id_feature.embedding_dim": 8})

    Args:
        config: changed in place.
        edit_json: the JSON text, or the decoded object.

    Returns:
        The config paths that changed.

    Raises:
        ConfigError: no JSON object, no such field, nothing matches, or a value does not fit.
    """
    changed: list[str] = []
    for path, value in _pairs(edit_json):
        changed += _apply(config, path, value)
    return changed


def set_config(config: Message, edits: Iterable[str]) -> list[str]:
    """Applies edits written as ``a.b[0].c=value`` (paths and values as in `edit_config`).

    Returns:
        The config paths that changed.

    Raises:
        ConfigError: no ``=``, no such field, nothing matches, or a value does not fit.
    """
    changed: list[str] = []
    for edit in edits:
        path, *rest = _split(edit, "=")
        if not rest:
            raise ConfigError(
                f"{edit!r} sets nothing: write path=value",
                hint="for example data_config.batch_size=256",
            )
        changed += _apply(config, path.strip(), edit[len(path) + 1 :])
    return changed


def _pairs(edit_json: str | dict[str, Any]) -> list[tuple[str, Any]]:
    edits = edit_json
    if isinstance(edits, str):
        try:
            edits = json.loads(edits)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"not JSON: {error.msg} at character {error.pos + 1} of {edit_json!r}",
                hint='write {"path.to.field": value} with double quotes',
            ) from None
    if not isinstance(edits, dict):
        raise ConfigError(f"must be a JSON object, not {edits!r}")
    pairs: list[tuple[str, Any]] = []
    for key, value in edits.items():
        paths = [part for part in _split(key, ";") if part.strip()]
        if len(paths) <= 1:
            pairs.append((key.strip().rstrip(";"), value))
            continue
        values = value.rstrip(";").split(";") if isinstance(value, str) else [value]
        if len(values) != len(paths):
            raise ConfigError(
                f"{key!r} holds {len(paths)} paths, but {value!r} holds {len(values)}"
            )
        pairs += [(p.strip(), v.strip()) for p, v in zip(paths, values, strict=True)]
    return pairs


def _split(text: str, separator: str) -> list[str]:
    """Splits at separators outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


@dataclasses.dataclass
class _Place:
    """A field of a message, or one element of it."""

    message: Message
    field: AnyField
    path: str
    index: int | None = None


def _apply(config: Message, path: str, value: Any) -> list[str]:
    try:
        places = _find(config, path)
        for place in places:
            _assign(place, value)
    except ConfigError as error:
        error.location.insert(0, path)
        raise
    return [place.path for place in places]


def _find(config: Message, path: str) -> list[_Place]:
    parts = _split(path, ".")
    messages: list[tuple[Message, str]] = [(config, "")]
    places: list[_Place] = []
    for number, part in enumerate(parts):
        match = _PART.fullmatch(part.strip())
        if not match:
            raise ConfigError(
                f"{part!r} is not a field name with an optional [selector]",
                hint="selectors: [2], [:], [1:3], [sub.path=value]",
            )
        name, selector = match[1], match[2]
        last = number == len(parts) - 1
        places = [
            place
            for message, prefix in messages
            for place in _select(message, prefix, name, selector, last=last)
        ]
        if not last:
            messages = [(_enter(place), place.path) for place in places]
    return places


def _select(
    message: Message, prefix: str, name: str, selector: str | None, *, last: bool
) -> list[_Place]:
    field: AnyField = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise ConfigError(
            f"{message.DESCRIPTOR.name} has no field {name!r}"
            f"{did_you_mean(name, message.DESCRIPTOR.fields_by_name)}"
        )
    path = f"{prefix}.{name}" if prefix else name
    listed = is_repeated(field) and not is_map(field)
    if selector is None:
        if listed and not last:
            raise ConfigError(
                f"{name!r} is a list: say which elements",
                hint=f"{name}[0], {name}[:] for all, or {name}[sub.path=value]",
            )
        return [_Place(message, field, path)]
    if not listed:
        raise ConfigError(f"{name!r} is not a list, so it takes no [{selector}]")
    indexes = _indexes(field, getattr(message, name), selector)
    return [_Place(message, field, f"{path}[{index}]", index) for index in indexes]


def _indexes(field: AnyField, elements: Sequence[Any], selector: str) -> list[int]:
    count = len(elements)
    text = selector.strip()
    if re.fullmatch(r"-?\d+", text):
        index = int(text)
        if not -count <= index < count:
            raise ConfigError(f"{field.name!r} has {count} elements, there is no [{text}]")
        return [index % count]
    slice_match = _SLICE.fullmatch(text)
    if slice_match:
        start, stop = (int(bound) if bound else None for bound in slice_match.groups())
        found = list(range(count))[start:stop]
    else:
        predicate = _PREDICATE.fullmatch(text)
        if not predicate or not is_message(field):
            raise ConfigError(
                f"[{text}] selects nothing", hint="selectors: [2], [:], [1:3], [sub.path=value]"
            )
        found = _matching(field, elements, predicate[1], predicate[2], predicate[3].strip())
    if not found:
        raise ConfigError(f"no element of {field.name!r} ({count} in all) matches [{text}]")
    return found


def _matching(
    field: AnyField, elements: Sequence[Message], sub_path: str, operator: str, wanted: str
) -> list[int]:
    descriptor, leaf = field.message_type, None
    for name in sub_path.split("."):
        if descriptor is None or name not in descriptor.fields_by_name:
            known = descriptor.fields_by_name if descriptor is not None else []
            raise ConfigError(f"[{sub_path}]: no field {name!r}{did_you_mean(name, known)}")
        leaf = descriptor.fields_by_name[name]
        descriptor = leaf.message_type
    if leaf is None or descriptor is not None or is_repeated(leaf):
        raise ConfigError(f"[{sub_path}] is not a single value, so it cannot be compared")
    text_field = leaf.cpp_type == FieldDescriptor.CPPTYPE_STRING
    if text_field and operator != "=":
        raise ConfigError(f"[{sub_path}{operator}{wanted}]: text can only be compared with =")
    target = wanted.strip("\"'") if text_field else _scalar(leaf, wanted)
    compare = _COMPARE[operator]
    values = [_value_at(element, sub_path) for element in elements]
    found = [i for i, value in enumerate(values) if value is not None and compare(value, target)]
    if not found and text_field:
        near = did_you_mean(str(target), [str(value) for value in values if value is not None])
        raise ConfigError(f"no element of {field.name!r} has {sub_path} {target!r}{near}")
    return found


def _value_at(message: Message, sub_path: str) -> Any:
    """Returns the value below a message, or None where a message on the way is not set."""
    *parents, leaf = sub_path.split(".")
    for name in parents:
        if is_repeated(message.DESCRIPTOR.fields_by_name[name]) or not message.HasField(name):
            return None
        message = getattr(message, name)
    return getattr(message, leaf)


def _enter(place: _Place) -> Message:
    field = place.field
    if not is_message(field) or is_map(field):
        raise ConfigError(f"{field.name!r} has no fields inside")
    if place.index is not None:
        element: Message = getattr(place.message, field.name)[place.index]
        return element
    oneof = field.containing_oneof
    chosen = place.message.WhichOneof(oneof.name) if oneof is not None else None
    if oneof is not None and chosen is not None and chosen != field.name:
        raise ConfigError(
            f"{field.name!r} is not the {oneof.name} that is chosen, {chosen!r} is",
            hint=f"to choose it, set {place.path} itself, for example {place.path}='{{ }}'",
        )
    child: Message = getattr(place.message, field.name)
    return child


def _assign(place: _Place, value: Any) -> None:
    message, field, index = place.message, place.field, place.index
    builder = Builder(Dialect(json=not isinstance(value, str), bare_strings=isinstance(value, str)))
    # Filled on the side first, so that a wrong value changes nothing.
    fresh = type(message)()
    if index is not None:
        node = _node(field, value, element=True)
        builder.add(fresh, field, node, place.path)
        _finish(builder)
        filled = getattr(fresh, field.name)[0]
        target = getattr(message, field.name)
        if is_message(field):
            target[index].CopyFrom(filled)
        else:
            target[index] = filled
        return
    builder.set_field(fresh, field, _node(field, value), place.path)
    _finish(builder)
    message.ClearField(field.name)
    message.MergeFrom(fresh)


def _finish(builder: Builder) -> None:
    for problem in builder.problems:
        if problem.fatal:
            raise ConfigError(problem.what, hint=problem.hint)


def _node(field: AnyField, value: Any, *, element: bool = False) -> Value:
    """Returns the tree of a value for a field."""
    if not isinstance(value, str):
        node = tree(value)
        if isinstance(node, Scalar) and node.text == "null":
            raise ConfigError("null is no value")
        return node
    text = value.strip()
    listed = is_repeated(field) and not element
    try:
        if is_message(field) and (not listed or text[:1] not in "[{"):
            return parse_text(_body(text))
        if listed and (is_message(field) or text[:1] in ("[", '"', "'")):
            return parse_value(text)
    except TextSyntaxError as error:
        raise ConfigError(f"{error.what} in {value!r}", hint=error.hint) from None
    if listed:
        return Items([_word(part.strip()) for part in text.split(",") if part.strip()], 1)
    return _word(value if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else text)


def _body(text: str) -> str:
    """Returns the inside of ``{ ... }``."""
    return text[1:-1] if text[:1] == "{" and text[-1:] == "}" else text


def _word(text: str) -> Scalar:
    return Scalar(text, "number" if re.fullmatch(r"[+-]?[\d.].*", text) else "word", 1)


def _scalar(field: AnyField, text: str) -> Any:
    builder = Builder(Dialect(bare_strings=True))
    value = builder.scalar(field, _word(text), field.name)
    _finish(builder)
    return value
