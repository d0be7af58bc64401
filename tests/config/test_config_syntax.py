# ruff: noqa: E501
"""The text parser against protobuf's own."""

from __future__ import annotations

import random

import pytest
from config_samples import DEEPFM, DIN
from google.protobuf import json_format, text_format
from google.protobuf.descriptor import FieldDescriptor

from tzrec.config.build import Builder, Dialect
from tzrec.config.json_syntax import parse_json
from tzrec.config.messages import STRUCT, is_map, is_message, is_repeated
from tzrec.config.syntax import TextSyntaxError, parse_text
from tzrec.protos.pipeline_pb2 import EasyRecConfig


def ours(text, dialect=None, reader=parse_text):
    builder = Builder(dialect or Dialect())
    message = EasyRecConfig()
    builder.fill(message, reader(text))
    assert [problem for problem in builder.problems if problem.fatal] == []
    return message


def theirs(text):
    return text_format.Merge(text, EasyRecConfig())


SNIPPETS = [
    "",
    "  # only a comment",
    "train_input_path: 'a' \"b\"\n  'c'",
    r'train_input_path: "tab\t quote\" hex\x03\x1d octal\035\7 slash\\ uni\u4e2d"',
    "train_input_path: 'é中文 # no comment'",
    'train_input_path: "a"; model_dir: "b", eval_input_path: ""',
    "data_config: { batch_size: 0x10 num_workers: 010 with_header: t }",
    "data_config < batch_size: 4 with_header: 1 shuffle: False >",
    "data_config { dataset_type: 2 fg_mode: FG_DAG }",
    "data_config { label_fields: ['a', \"b\"] label_fields: 'c' label_fields: [] }",
    "feature_configs [{ id_feature { feature_name: 'a' } }, { raw_feature {} }]",
    "feature_configs { raw_feature { boundaries: [1, -2.5, 1e3, .5, 3., -inf, 1.5f] } }",
    "feature_configs { id_feature { vocab_dict { key: 'a' value: 2 } vocab_dict { key: 'b' value: 3 } } }",
    "feature_configs { id_feature { vocab_dict [{ key: 'a' value: 2 }, { value: 3 key: 'b' }] } }",
    "train_config { num_steps: 1 } train_config { num_epochs: 2 num_steps: 3 }",
    "model_config { custom_model { class_path: 'a.b' params { fields { key: 'x' "
    "value { number_value: 3 } } fields { key: 'y' value { string_value: 'z' } } } } }",
    "model_config { losses { jrc_loss { alpha: nan } } }",
    DEEPFM,
    DIN,
]


@pytest.mark.parametrize("text", SNIPPETS)
def test_reads_what_protobuf_reads(text):
    mine, reference = ours(text), theirs(text)
    assert mine.SerializePartialToString(deterministic=True) == (
        reference.SerializePartialToString(deterministic=True)
    )


_STRINGS = ["", "plain", "with 'both\" quotes", "\x03\x1d\t\n\\", "中文 é", "# no comment", "{}"]
_F = FieldDescriptor


def _scalar(rng, field):
    kind = field.cpp_type
    if kind == _F.CPPTYPE_STRING:
        return rng.choice(_STRINGS)
    if kind == _F.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == _F.CPPTYPE_ENUM:
        return rng.choice(list(field.enum_type.values_by_number))
    if kind in (_F.CPPTYPE_FLOAT, _F.CPPTYPE_DOUBLE):
        return rng.choice([0.0, 0.1, -1e-12, 3e38, float("inf"), rng.gauss(0, 1), 1e-45])
    top = {_F.CPPTYPE_INT32: 2**31, _F.CPPTYPE_UINT32: 2**32, _F.CPPTYPE_INT64: 2**63}.get(
        kind, 2**64
    )
    low = -top if kind in (_F.CPPTYPE_INT32, _F.CPPTYPE_INT64) else 0
    return rng.choice([0, 1, low, top - 1, rng.randrange(top)])


def fill(rng, message, depth=0):
    """Sets random fields, random values."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() > (0.5 if depth < 2 else 0.25) or depth > 6:
            continue
        oneof = field.containing_oneof
        if oneof is not None and message.WhichOneof(oneof.name):
            continue
        if is_map(field):
            item = field.message_type.fields_by_name["value"]
            getattr(message, field.name)[rng.choice(_STRINGS)] = _scalar(rng, item)
        elif is_message(field):
            target = getattr(message, field.name)
            for child in [target.add() for _ in range(2)] if is_repeated(field) else [target]:
                child.SetInParent()
                if child.DESCRIPTOR.full_name == STRUCT:
                    child.update({"a": 1.5, "b c": [True, "x", {"d": None}]})
                else:
                    fill(rng, child, depth + 1)
        elif is_repeated(field):
            getattr(message, field.name).extend(_scalar(rng, field) for _ in range(3))
        else:
            setattr(message, field.name, _scalar(rng, field))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("options", [{}, {"as_utf8": True}, {"as_one_line": True}])
def test_random_messages_survive_text(seed, options):
    message = EasyRecConfig()
    fill(random.Random(seed), message)
    assert ours(text_format.MessageToString(message, **options)) == message


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("keep", [True, False])
def test_random_messages_survive_json(seed, keep):
    message = EasyRecConfig()
    fill(random.Random(seed), message)
    text = json_format.MessageToJson(message, preserving_proto_field_name=keep)
    assert ours(text, Dialect(json=True), parse_json) == message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a {\n  b: 1\n", 1, "the '}' of 'a' (opened in line 1) is missing"),
        ("a {\n  b {\n    c: 1\n  d: 2\n}\n", 2, "the '}' of 'b' (opened in line 2) is missing"),
        ("a: 1\n}\n", 2, "unexpected '}': nothing is open here"),
        ("a < b: 1 }", 1, "unexpected '}', expected '>'"),
        ("a 5", 1, "expected ':' or '{' after 'a', found '5'"),
        ("a:\n\nb: 5", 3, "expected ':' or '{' after"),
        ("a: /x/y", 1, "expected a value, found '/'"),
        ('\na: "open\n', 2, 'the string that starts with " has no end on its line'),
        ("a: [1, 2", 1, "expected ',' or ']' in the list opened at line 1"),
        ("a: [1 2]", 1, "expected ',' or ']'"),
        (r'a: "\xzz"', 1, "wrong escape"),
        ("[ext.name]: 1", 1, "extensions"),
        ("a: 12abc", 1, "expected a value, found '12abc'"),
        ("5: 1 5 5", 1, "expected a field name, found '5'"),
    ],
)
def test_broken_text(text, line, words):
    with pytest.raises(TextSyntaxError) as caught:
        parse_text(text)
    if "b: 5" not in text:
        assert words in caught.value.what
        assert caught.value.line == line


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[]", 1, "one JSON object"),
        ('{\n "a": 1,\n}', 3, "expected a field name in double quotes, found '}'"),
        ("{'a': 1}", 1, "expected a field name"),
        ('{"a": 1', 1, "expected ',' or '}', found the end of the file"),
        ('{"a" 1}', 1, "expected ':', found '1'"),
        ('{"a": tru}', 1, "expected a value, found 'tru'"),
        ('{"a": 1} x', 1, "expected the end of the file, found 'x'"),
        ('{"a": "\\q"}', 1, "escape"),
    ],
)
def test_broken_json(text, line, words):
    with pytest.raises(TextSyntaxError) as caught:
        parse_json(text)
    assert words in caught.value.what
    assert caught.value.line == line


def test_struct_takes_its_natural_form():
    text = """model_config { custom_model { class_path: "a.B" params {
      hidden: [64, 32] rate: 0.5 name: "x" on: true nested { depth: 2 } nothing: null } } }"""
    params = ours(text).model_config.custom_model.params
    assert dict(json_format.MessageToDict(params)) == {
        "hidden": [64, 32],
        "rate": 0.5,
        "name": "x",
        "on": True,
        "nested": {"depth": 2},
        "nothing": None,
    }
    assert ours(text_format.MessageToString(ours(text))) == ours(text)
