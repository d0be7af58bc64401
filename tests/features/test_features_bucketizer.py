"""Table sizes, reserved ids, conflicts; and that generated ids are rows of the table."""

import numpy as np
import pyarrow as pa
import pytest
from features_helpers import config
from hypothesis import given, settings
from hypothesis import strategies as st

from tzrec.config.feature_facts import flatten
from tzrec.errors import ConfigError, FeatureError
from tzrec.features.bucketizer import create_bucketizer
from tzrec.fg import FgHandler
from tzrec.fg.config_json import create_fg_json
from tzrec.protos.feature_pb2 import FeatureConfig, IdFeature, RawFeature
from tzrec.protos.pipeline_pb2 import EasyRecConfig

WORDS = ["abc", "efg"]


def of(**fields):
    return create_bucketizer(IdFeature(feature_name="cat", embedding_dim=4, **fields))


def of_boundaries(*edges):
    return create_bucketizer(RawFeature(feature_name="price", boundaries=edges))


@pytest.fixture
def vocab(tmp_path):
    (tmp_path / "words").write_text("a\nb\nc\n")
    (tmp_path / "pairs").write_text("a 2\nb 7\nc 7\n")
    return tmp_path


class TestRows:
    @pytest.mark.parametrize(
        ("fields", "rows", "kind"),
        [
            ({"hash_bucket_size": 100}, 100, "hash_bucket_size"),
            ({"num_buckets": 7}, 7, "num_buckets"),
            ({"vocab_list": WORDS}, 4, "vocab_list"),
            ({"vocab_list": WORDS, "default_bucketize_value": 0}, 2, "vocab_list"),
            ({"vocab_dict": {"a": 2, "b": 9}}, 10, "vocab_dict"),
            ({"vocab_dict": {"a": 2, "b": 9}, "default_bucketize_value": 9}, 10, "vocab_dict"),
            ({"vocab_dict": {"a": 0}}, 2, "vocab_dict"),  # the reserved ids are rows, too
        ],
    )
    def test_of_each_kind(self, fields, rows, kind):
        found = of(**fields)
        assert (found.rows, found.kind) == (rows, kind)

    def test_of_boundaries(self):
        assert of_boundaries(0.5, 1, 2).rows == 4
        assert of_boundaries() is None

    def test_of_files(self, vocab):
        assert of(vocab_file=str(vocab / "words"), default_bucketize_value=0).rows == 3
        assert of(vocab_file=str(vocab / "pairs"), default_bucketize_value=0).rows == 8
        assert of(vocab_file="words", asset_dir=str(vocab), default_bucketize_value=2).rows == 3

    def test_none(self):
        assert of() is None

    def test_first_that_is_set_sizes_the_table(self, vocab):
        fields = {
            "hash_bucket_size": 50,
            "num_buckets": 40,
            "vocab_list": WORDS,
            "vocab_dict": {"a": 5},
            "vocab_file": str(vocab / "words"),
        }
        # default_bucketize_value is needed by the file and takes the list and the dict verbatim.
        sizes = []
        while fields:
            sizes.append(of(default_bucketize_value=0, **fields).rows)
            fields.pop(next(iter(fields)))
        assert sizes == [50, 40, 2, 6, 3]

    def test_agrees_with_the_config_rules(self, vocab):
        cases = [
            "hash_bucket_size: 9 num_buckets: 3",
            "num_buckets: 30 vocab_list: 'a'",
            "vocab_list: ['a', 'b']",
            "vocab_list: ['a', 'b'] default_bucketize_value: 1",
            "vocab_dict { key: 'a' value: 6 }",
            f"vocab_file: '{vocab}/words' default_bucketize_value: 1",
            f"vocab_file: '{vocab}/pairs' default_bucketize_value: 1",
            "boundaries: [1, 2]",
        ]
        for text in cases:
            kind = "raw_feature" if "boundaries" in text else "id_feature"
            whole = config(
                f"{kind} {{ feature_name: 'f' expression: 'user:f' embedding_dim: 4 {text} }}"
            )
            (facts,) = flatten(EasyRecConfig(feature_configs=[whole]))
            assert create_bucketizer(getattr(whole, kind)).rows == facts.rows, text


class TestConflicts:
    def test_vocabulary_larger_than_num_buckets(self):
        with pytest.raises(
            ConfigError, match="num_buckets 3 is smaller than the ids of vocab_list"
        ) as e:
            of(num_buckets=3, vocab_list=WORDS)
        assert "at least 4" in e.value.hint
        found = of(num_buckets=30, vocab_list=WORDS)
        # FG looks the words up; num_buckets only makes room.
        assert (found.rows, found.kind, found.oov_id) == (30, "vocab_list", 1)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"num_buckets": 0}, "num_buckets is 0"),
            ({"hash_bucket_size": 0}, "hash_bucket_size is 0"),
            (
                {"vocab_list": WORDS, "default_bucketize_value": 2},
                "2 is no id of vocab_list, .* 0 to 1",
            ),
            ({"vocab_dict": {"a": 3}, "default_bucketize_value": 4}, "4 is no id of vocab_dict"),
            ({"vocab_file": "x"}, "needs default_bucketize_value"),
            ({"vocab_file": "/nowhere/x", "default_bucketize_value": 0}, "x does not exist"),
        ],
    )
    def test_unusable(self, fields, message):
        with pytest.raises(ConfigError, match=message):
            of(**fields)

    def test_default_outside_the_file(self, vocab):
        with pytest.raises(ConfigError, match="3 is no id of vocab_file"):
            of(vocab_file=str(vocab / "words"), default_bucketize_value=3)

    @pytest.mark.parametrize("edges", [(1, 1), (2, 1), (0, float("nan"))])
    def test_boundaries_ascend(self, edges):
        with pytest.raises(ConfigError, match="boundaries"):
            of_boundaries(*edges)

    def test_hash_tables(self):
        message = IdFeature(feature_name="cat", embedding_dim=4)
        message.zch.zch_size = 10
        with pytest.raises(ConfigError, match="zch has no eviction policy"):
            create_bucketizer(message)
        message.zch.lfu.SetInParent()
        zch = create_bucketizer(message)
        assert (zch.kind, zch.rows, zch.identity["hash"]) == ("zch", 10, "murmur_hash64a")
        farm = create_bucketizer(message, farm_hash=True)
        assert farm.fingerprint != zch.fingerprint
        message.ClearField("zch")
        message.dynamicemb.max_capacity = 10
        dynamic = create_bucketizer(message)
        assert (dynamic.kind, dynamic.rows) == ("dynamicemb", 12)


def ids_of(message, column):
    """The ids that feature generation makes of a column."""
    wrapper = FeatureConfig(**{field_of(message): message})
    found = FgHandler(create_fg_json([wrapper])).process_arrow({"c": column})
    return found[message.feature_name].values.tolist()


def field_of(message):
    return "raw_feature" if isinstance(message, RawFeature) else "id_feature"


def made(column, **fields):
    message = IdFeature(feature_name="cat", expression="user:c", embedding_dim=4, **fields)
    return ids_of(message, pa.array(column))


class TestIds:
    """The table of a config and the ids that generation makes of the same config fit."""

    def test_hash(self):
        assert made(["abc", "efg", "1"], hash_bucket_size=100) == [33, 44, 95]

    def test_num_buckets(self):
        values = ["7", "+07", "0012", "-1", "10", str(2**70)]
        assert made(values, num_buckets=10) == [7, 7, 0, 0, 0, 0]
        with pytest.raises(FeatureError, match="'abc', which is not a whole number"):
            made(["abc"], num_buckets=10)

    def test_vocab_list(self):
        words = ["xyz", "<OOV>", "abc", "efg", "hij", None]
        assert made(words, vocab_list=WORDS, default_value="xyz") == [0, 1, 2, 3, 1, 0]
        assert made(["abc", None], vocab_list=WORDS, default_value="abc") == [2, 2]
        verbatim = {"vocab_list": WORDS, "default_bucketize_value": 1}
        assert made(["abc", "efg", "hij"], **verbatim) == [0, 1, 1]

    def test_vocab_dict(self):
        fields = {"vocab_dict": {"abc": 2, "efg": 3}, "default_value": "efg"}
        assert made(["abc", "efg", "hij"], **fields) == [2, 0, 1]
        assert made(["abc", "efg", "hij"], default_bucketize_value=2, **fields) == [2, 3, 2]

    def test_vocab_file(self, vocab):
        fields = {"vocab_file": str(vocab / "pairs"), "default_bucketize_value": 4}
        assert made(["a", "c", "?"], **fields) == [2, 7, 4]

    def test_boundaries(self):
        raw = RawFeature(feature_name="p", expression="user:c", boundaries=[0.05, 0.15, 0.25])
        # A value equal to a boundary falls into the upper bucket.
        values = pa.array(["0", "0.05", "0.1", "0.25", "9"])
        assert ids_of(raw, values) == [0, 1, 1, 3, 3]


WORD = st.text("ab日0-", max_size=4)
NUMBER = st.integers(-(2**70), 2**70).map(str)


def buckets(draw):
    """Fields of any bucketizers together."""
    fields = {}
    if draw(st.booleans()):
        fields["hash_bucket_size"] = draw(st.integers(1, 2**40))
    if draw(st.booleans()):
        fields["num_buckets"] = draw(st.integers(1, 20))
    if draw(st.booleans()):
        fields["vocab_list"] = draw(st.lists(WORD, min_size=1, max_size=20))
    if draw(st.booleans()):
        words = st.dictionaries(WORD, st.integers(0, 30), min_size=1, max_size=5)
        fields["vocab_dict"] = draw(words)
    if draw(st.booleans()):
        fields["default_bucketize_value"] = draw(st.integers(0, 20))
    fields["default_value"] = draw(WORD)
    return fields


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_id_is_a_row(data):
    """0 ≤ id < rows, whatever the config and the value; a config that cannot promise it raises."""
    fields = buckets(data.draw)
    try:
        found = of(**fields)
    except ConfigError:
        return
    if found is None:
        assert not {"hash_bucket_size", "num_buckets", "vocab_list", "vocab_dict"} & set(fields)
        return
    words = data.draw(st.lists(NUMBER if found.kind == "num_buckets" else WORD, max_size=5))
    if found.kind == "num_buckets":
        fields["default_value"] = data.draw(NUMBER)
    else:
        words += [*fields.get("vocab_list", []), *fields.get("vocab_dict", {})]
    assert all(0 <= index < found.rows for index in made([*words, None], **fields))
    for reserved in (found.oov_id, found.default_id):
        assert reserved is None or 0 <= reserved < found.rows


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), max_size=5, unique=True), st.floats(width=32))
def test_every_bucket_is_a_row(edges, value):
    edges = sorted(edges, key=lambda x: (x, np.signbit(x)))
    if not edges or len(set(edges)) < len(edges):  # 0 and -0 are equal
        return
    raw = RawFeature(feature_name="p", expression="user:c", boundaries=edges)
    (index,) = ids_of(raw, pa.array([repr(value)]))
    assert index == (len(edges) if np.isnan(value) else sum(edge <= value for edge in edges))
    assert 0 <= index < of_boundaries(*edges).rows
