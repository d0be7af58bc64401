"""What a feature group may not be, and what can be asked about one."""

import pytest
from modules_fakes import FakeFeature, dense, ids
from test_modules_embedding import FEATURES, build, parse

from tzrec.errors import ConfigError
from tzrec.modules.embedding import EmbeddingGroup, SequenceEmbeddingGroup
from tzrec.protos import model_pb2

OTHER = [
    *FEATURES,
    ids("neg", data_group="__NEG__"),
    ids("neg_clicks", data_group="__NEG__", is_sequence=True),
    dense("with_dim_0", 0, is_sequence=True),
]
SUB = 'sequence_groups { group_name: "s" feature_names: "clicks" }'
POOL = 'sequence_encoders { pooling_encoder { input: "s" } }'


def group(text: str, kind: str = "DEEP", name: str = "g") -> str:
    return f'feature_groups {{ group_name: "{name}" group_type: {kind} {text} }}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (group('feature_names: "usr"'), "'usr' of group 'g' is not in.*did you mean 'user'"),
        (group('feature_names: ["user", "user"]'), "'user' stands twice"),
        (group(""), "'g' has no features"),
        (group('feature_names: "user"') * 2, "two feature groups are named 'g'"),
        (group('feature_names: "user"', name="a.b"), "group_name 'a.b'"),
        (group('feature_names: ["user", "neg"]'), "different rows.*__BASE__.*user.*__NEG__.*neg"),
        (
            group(f'feature_names: "neg" {SUB} {POOL}'),
            "different rows.*'neg'.*'clicks'",
        ),
        (group('feature_names: "age"', "WIDE"), "'age' of the WIDE group 'g' is dense"),
        (group('feature_names: "price"', "WIDE"), "'price' of the WIDE group 'g' is dense"),
        (group('feature_names: "times"'), "'times' of group 'g' is a sequence of dense"),
        (group('feature_names: "user"', "SEQUENCE"), "'g' has no sequence feature"),
        (group('feature_names: "user"', "JAGGED_SEQUENCE"), "'g' has no sequence feature"),
        (group(f'feature_names: "user" {SUB} {POOL}', "WIDE"), "is WIDE; only DEEP"),
        (group(f'feature_names: "clicks" {SUB} {POOL}', "SEQUENCE"), "is SEQUENCE; only DEEP"),
        (group(f'feature_names: "user" {SUB}'), "no sequence_encoders"),
        (group(f'feature_names: "user" {POOL}'), "no sequence_groups"),
        (
            group(f'{SUB} sequence_groups {{ feature_names: "words" }} {POOL}'),
            "every one of them needs a group_name",
        ),
        (
            group(f'{SUB} sequence_groups {{ group_name: "other" feature_names: "words" }} {POOL}'),
            "no sequence encoder.*'other'",
        ),
        (
            group(f'{SUB} {POOL} sequence_encoders {{ pooling_encoder {{ input: "so" }} }}'),
            "input of pooling_encoder is 'so'",
        ),
        (
            group(f"{SUB} {POOL}") + group(f"{SUB} {POOL}", name="h"),
            "two sequence groups are named 's'",
        ),
        (
            group(f"{SUB} {POOL}") + group('feature_names: "clicks"', "SEQUENCE", "s"),
            "two sequence groups are named 's'",
        ),
        (group(f"{SUB} sequence_encoders {{ simple_attention {{ }} }}"), "needs a query"),
    ],
)
def test_wrong_groups(text: str, message: str) -> None:
    text = text.replace("simple_attention { }", 'simple_attention { input: "s" }')
    with pytest.raises(ConfigError, match=message):
        EmbeddingGroup(OTHER, parse(text))


def test_errors_are_value_errors() -> None:
    with pytest.raises(ValueError, match="no features"):
        EmbeddingGroup(OTHER, parse(group("")))


def test_questions() -> None:
    text = (
        group(f'feature_names: ["user", "age"] {SUB} {POOL}', name="z")
        + group('feature_names: "user"', "WIDE", "w")
        + group('feature_names: ["item", "clicks"]', "SEQUENCE", "a")
        + group('feature_names: "clicks"', "JAGGED_SEQUENCE", "j")
    )
    made = build(text, OTHER, wide_embedding_dim=7)
    assert made.group_names() == ["z", "w", "a", "j"]
    assert made.group_type("z") == model_pb2.FeatureGroupType.DEEP
    assert made.group_type("j") == model_pb2.FeatureGroupType.JAGGED_SEQUENCE
    present = ["z", "w", "a", "j", "a.query", "a.sequence", "s.sequence", "j.sequence"]
    assert all(made.has_group(name) for name in present)
    assert not any(made.has_group(name) for name in ("x", "j.query", "z.query", "s"))
    assert made.group_dims("w") == [7]
    assert made.group_total_dim("z") == 4 + 1 + 6
    assert made.group_total_dim("a.query") == made.group_total_dim("a.sequence") == 6
    assert made.group_feature_dims("z") == {"user": 4, "age": 1, "z_seq_encoder_0": 6}
    assert made.grouped_features_keys() == [
        *("a.query", "a.sequence", "a.sequence_length"),
        *("j.sequence", "j.sequence_length"),
        *("s.sequence", "s.sequence_length"),
        *("w", "z"),
    ]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (lambda g: g.group_total_dim("dep"), "did you mean 'deep'"),
        (lambda g: g.group_type("dep"), "did you mean 'deep'"),
        (lambda g: g.group_dims("seq"), r"ask for seq\.sequence or seq\.query"),
        (lambda g: g.group_total_dim("flat.query"), "no feature group 'flat.query'"),
        (lambda g: g.group_feature_dims("seq"), "'seq' is a sequence group"),
    ],
)
def test_wrong_questions(question: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        question(build())


def test_sequence_embedding_group() -> None:
    text = group('feature_names: ["item", "clicks"]', "SEQUENCE")
    made = SequenceEmbeddingGroup(FEATURES, parse(text))
    assert made.grouped_features_keys() == ["g.query", "g.sequence", "g.sequence_length"]
    with pytest.raises(ConfigError, match="'g' is DEEP; it must be SEQUENCE"):
        SequenceEmbeddingGroup(FEATURES, parse(group('feature_names: "user"')))


def test_unused_features_cost_nothing() -> None:
    features: list[FakeFeature] = [ids("a"), ids("never", embedding_name="with.dot")]
    made = EmbeddingGroup(features, parse(group('feature_names: "a"')))
    assert len(list(made.parameters())) == 1
