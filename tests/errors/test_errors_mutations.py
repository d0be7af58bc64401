"""Every field of every message, set to odd values: always an answer, never a traceback.

The values are not all wrong; what is asserted is that no combination crashes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from errors_runner import DEEPFM, DIN, Case, execute, write_case
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor

from tzrec.config.messages import is_map, is_message, is_repeated
from tzrec.protos.pipeline_pb2 import EasyRecConfig

_ODD = {
    FieldDescriptor.CPPTYPE_BOOL: (True, False),
    FieldDescriptor.CPPTYPE_FLOAT: (0.0, 0.5, -1.0, float("nan")),
    FieldDescriptor.CPPTYPE_DOUBLE: (0.0, -1.0, float("inf")),
    FieldDescriptor.CPPTYPE_STRING: ("", "x", "clk", "user_id"),
    FieldDescriptor.CPPTYPE_INT32: (0, 2, -1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2),
    FieldDescriptor.CPPTYPE_INT64: (0, 2, -1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2),
}
# Processes and profiles take long, and are about the machine.
_LEFT_OUT = ("num_workers", "loader", "is_profiling")


def mutations(text: str) -> Iterator[tuple[str, EasyRecConfig]]:
    """Yields what was changed and the config, one field of each message type at a time."""
    base = text_format.Parse(text, EasyRecConfig())
    seen = set()
    for path, message in messages(base):
        for field in message.DESCRIPTOR.fields:
            key = (message.DESCRIPTOR.name, field.name)
            if key in seen or field.name in _LEFT_OUT or is_map(field):
                continue
            seen.add(key)
            for value in values(field):
                config = EasyRecConfig()
                config.CopyFrom(base)
                change(at(config, path), field, value)
                yield f"{path} {field.name} = {value!r}", config


def messages(message, path=()):
    yield path, message
    for field, value in message.ListFields():
        if is_message(field) and not is_map(field):
            children = enumerate(value) if is_repeated(field) else [(None, value)]
            for index, child in children:
                yield from messages(child, (*path, (field.name, index)))


def at(message, path):
    for name, index in path:
        message = getattr(message, name)
        message = message if index is None else message[index]
    return message


def values(field):
    if is_message(field):
        return [None]
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return [value.number for value in field.enum_type.values]
    return _ODD[field.cpp_type]


def change(message, field, value):
    if value is None and is_repeated(field):
        getattr(message, field.name).add()
    elif value is None:
        getattr(message, field.name).SetInParent()
    elif is_repeated(field):
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def answers(text, root, command):
    write_case(Case("nothing", "", text=text), root, None)
    codes = set()
    for what, config in mutations(text):
        written = text_format.MessageToString(config, as_utf8=True)
        (root / "c.config").write_text(written)
        for name in ("run", "x", "clk", "user_id"):
            shutil.rmtree(root / name, ignore_errors=True)
        found = execute(command, root)
        assert "Traceback" not in found.err + found.out, what
        assert found.code != 1, f"{what}: {found.err}"
        assert found.code == 0 or found.err, what
        codes.add(found.code)
    return codes


@pytest.mark.parametrize("text", [DEEPFM, DIN], ids=["deepfm", "din"])
def test_check_always_has_an_answer(tmp_path, text):
    assert answers(text, tmp_path, "check c.config --data") == {0, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("text", [DEEPFM, DIN], ids=["deepfm", "din"])
def test_training_always_has_an_answer(tmp_path, text):
    edits = "--set train_config.num_steps=2 --set train_config.num_epochs=0"
    assert {0, 2, 3} <= answers(text, tmp_path, f"train c.config {edits}")
