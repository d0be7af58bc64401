from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from google.protobuf import text_format
from tiled_requests import merged

from tzrec.batch import Batch
from tzrec.datasets import tiling
from tzrec.datasets.data_parser import DataParser
from tzrec.errors import ConfigError, DataError
from tzrec.features.feature import FgMode, create_features
from tzrec.protos.feature_pb2 import FeatureConfig

CONFIGS = """
id_feature { feature_name: "u" expression: "user:u" num_buckets: 50 embedding_dim: 4 }
id_feature { feature_name: "liked" expression: "user:liked" num_buckets: 50 embedding_dim: 4
    weighted: true }
raw_feature { feature_name: "age" expression: "user:age" }
id_feature { feature_name: "i" expression: "item:i" num_buckets: 50 embedding_dim: 4 }
raw_feature { feature_name: "price" expression: "item:price" }
id_feature { feature_name: "hour" expression: "context:hour" num_buckets: 24 embedding_dim: 4 }
sequence_id_feature { feature_name: "words" expression: "user:words" num_buckets: 50
    embedding_dim: 4 value_dim: 0 }
sequence_raw_feature { feature_name: "seen" expression: "user:seen" value_dim: 2 }
sequence_id_feature { feature_name: "parts" expression: "item:parts" num_buckets: 50
    embedding_dim: 4 value_dim: 0 }
sequence_feature { sequence_name: "h" sequence_length: 9 sequence_delim: ";"
    features { id_feature { feature_name: "i" expression: "item:i" num_buckets: 50
        embedding_dim: 4 } }
    features { raw_feature { feature_name: "price" expression: "item:price" } } }
"""
OF_USER = {"u", "liked", "age", "words", "seen", "h__i", "h__price"}

# Encoded columns; None and "" are missing values.
USERS = {
    "u": ["3", None],
    "liked": ["1:0.5\x032:2.0", ""],
    "age": [31.0, 18.0],
    "words": ["1\x032;3;4\x034\x034", ""],
    "seen": ["1\x032;3\x034", ""],
    "h__i": ["7;8;9", "1"],
    "h__price": ["0.5;1.5;2.5", "4"],
}
ITEMS = {
    "i": [5, 6, 7, 8, None],
    "price": [1.0, 2.0, 3.0, 4.0, 5.0],
    "parts": ["1;2\x033", None, "4", "5\x036;7;8", "9"],
}
HOUR = {"hour": [13]}


def features_of(text, fg_mode=FgMode.FG_NONE):
    configs = [text_format.Parse(one, FeatureConfig()) for one in split_messages(text)]
    return create_features(configs, fg_mode)


def split_messages(text):
    """Cuts at the braces of the outermost level."""
    depth, start = 0, 0
    for place, letter in enumerate(text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "}" and depth == 0:
            yield text[start : place + 1]
            start = place + 1


@pytest.fixture(scope="module")
def features():
    return features_of(CONFIGS)


def columns(*parts, rows=None):
    """Arrow columns; ``rows`` numbers those to take of each."""
    found = {}
    for part in parts:
        for name, values in part.items():
            text = any(isinstance(v, str) for v in values)
            column = pa.array(values, pa.string() if text else None)
            found[name] = column if rows is None else column.take(pa.array(rows))
    return found


def request(user, items=range(5)):
    one = columns(USERS, rows=[user]) | columns(HOUR)
    return one | columns(ITEMS, rows=list(items))


def repeated(requests):
    """The rows that requests (user, items) stand for, put together by Arrow."""
    user_rows = [user for user, items in requests for _ in items]
    item_rows = [item for _, items in requests for item in items]
    hours = columns(HOUR, rows=[0] * len(user_rows))
    return columns(USERS, rows=user_rows) | hours | columns(ITEMS, rows=item_rows)


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert torch.equal(found[key], value), key


class TestUserFeatures:
    def test_by_the_sides_of_inputs(self, features):
        assert tiling.user_features(features) == OF_USER

    def test_dag(self):
        made = features_of(
            """
            combo_feature { feature_name: "a" expression: ["user:x", "const:1"]
                hash_bucket_size: 9 embedding_dim: 4 }
            combo_feature { feature_name: "b" expression: ["feature:a", "user:y"]
                hash_bucket_size: 9 embedding_dim: 4 }
            combo_feature { feature_name: "c" expression: ["feature:b", "item:z"]
                hash_bucket_size: 9 embedding_dim: 4 }
            id_feature { feature_name: "d" expression: "feature:c" num_buckets: 9
                embedding_dim: 4 }
            raw_feature { feature_name: "e" expression: "user:e" stub_type: true }
            expr_feature { feature_name: "f" expression: "e + 1" variables: "feature:e" }
            lookup_feature { feature_name: "g" map: "user:m" key: "item:z" }
            lookup_feature { feature_name: "k" map: "user:m" key: "const:1" }
            """,
            FgMode.FG_DAG,
        )
        assert tiling.user_features(made) == {"a", "b", "f", "k"}

    def test_constants_alone_are_nobodys(self):
        made = features_of(
            'combo_feature { feature_name: "a" expression: ["const:1", "const:2"] '
            "hash_bucket_size: 9 embedding_dim: 4 }",
            FgMode.FG_DAG,
        )
        assert tiling.user_features(made) == frozenset()

    def test_features_that_read_each_other(self):
        made = features_of(
            """
            id_feature { feature_name: "a" expression: "feature:b" num_buckets: 9
                embedding_dim: 4 }
            id_feature { feature_name: "b" expression: "feature:a" num_buckets: 9
                embedding_dim: 4 }
            """,
            FgMode.FG_DAG,
        )
        assert tiling.user_features(made) == frozenset()

    @pytest.mark.parametrize(("pk", "expected"), [("user:h", {"h__i"}), ("item:h", set())])
    def test_sequence_of_whom(self, pk, expected):
        made = features_of(
            'sequence_feature { sequence_name: "h" sequence_length: 9 sequence_delim: ";" '
            f'sequence_pk: "{pk}" features {{ id_feature {{ feature_name: "i" '
            'expression: "item:i" num_buckets: 9 embedding_dim: 4 } } }'
        )
        assert tiling.user_features(made) == expected


def test_modes():
    assert [tiling.check_input_tile(mode) for mode in (0, 2, 3)] == [0, 2, 3]
    with pytest.raises(ConfigError, match=r"input_tile is 1, must be 0 .* 2 .* or 3"):
        DataParser([], input_tile=1)


class TestParseRequest:
    @pytest.mark.parametrize("user", [0, 1])
    def test_users_arrive_once(self, features, user):
        parser = DataParser(features, input_tile=3)
        assert parser.user_features == OF_USER
        parsed = parser.parse_request(request(user), 5)
        once = parser.parse_request(request(user, [0]), 1)
        assert parsed["batch_size"].tolist() == 5
        assert once["batch_size"].tolist() == 1
        for name in OF_USER:
            for part in tiling.PARTS:
                key = f"{name}.{part}"
                assert (key in parsed) == (key in once)
                if key in parsed:
                    assert torch.equal(parsed[key], once[key]), key
        assert parsed["hour.values"].tolist() == [13] * 5
        assert parsed["i.lengths"].tolist() == [1, 1, 1, 1, 0]

    @pytest.mark.parametrize("user", [0, 1])
    def test_an_untiled_model_gets_repeated_rows(self, features, user):
        parser = DataParser(features)
        found = parser.parse_request(request(user), 5)
        assert_same(found, parser.parse(repeated([(user, range(5))])))

    @pytest.mark.parametrize("mode", [2, 3])
    def test_one_row_and_no_user(self, features, mode):
        items = [f for f in features if f.name in ("i", "price")]
        parser = DataParser(items, input_tile=mode)
        found = parser.parse_request(columns(ITEMS), 5)
        assert parser.user_features == frozenset()
        assert found.pop("batch_size").tolist() == 1
        assert_same(found, DataParser(items).parse(columns(ITEMS)))

    def test_a_users_column_that_differs_between_candidates(self, features):
        given = request(0) | columns({"age": [1.0, 2.0, 3.0, 4.0, 5.0]})
        found = DataParser(features, input_tile=3).parse_request(given, 5)
        assert found.pop("batch_size").tolist() == 1
        rows = repeated([(0, range(5))]) | {"age": given["age"]}
        assert_same(found, DataParser(features).parse(rows))

    @pytest.mark.parametrize("mode", [0, 3])
    def test_other_numbers_of_rows(self, features, mode):
        given = request(0) | columns({"price": [1.0, 2.0]})
        with pytest.raises(DataError, match=r"'price' has 2 rows of columns price; there are 5"):
            DataParser(features, input_tile=mode).parse_request(given, 5)
        given = request(0) | columns(USERS)
        with pytest.raises(DataError, match=r"'u' has 2 rows .* 5 candidates"):
            DataParser(features, input_tile=mode).parse_request(given, 5)

    def test_missing_column(self, features):
        given = request(0)
        del given["age"]
        with pytest.raises(DataError, match="'age'"):
            DataParser(features, input_tile=2).parse_request(given, 5)

    @pytest.mark.parametrize("fg_mode", [FgMode.FG_NORMAL, FgMode.FG_DAG])
    def test_generated_features(self, fg_mode):
        made = features_of(
            """
            id_feature { feature_name: "u" expression: "user:u" hash_bucket_size: 99
                embedding_dim: 4 }
            combo_feature { feature_name: "ui" expression: ["user:u", "item:i"]
                hash_bucket_size: 999 embedding_dim: 4 }
            match_feature { feature_name: "m" nested_map: "user:m" pkey: "item:i" skey: "ALL"
                default_value: "0" }
            sequence_feature { sequence_name: "h" sequence_length: 9 sequence_delim: ";"
                features { id_feature { feature_name: "i" expression: "item:i"
                    hash_bucket_size: 99 embedding_dim: 4 } }
                features { expr_feature { feature_name: "ago" expression: "t - now"
                    variables: ["item:t", "context:now"] } } }
            """,
            fg_mode,
        )
        user = {"u": ["ann"], "m": ["a^x:2"], "h__i": ["a;b"], "h__t": ["4;6"], "now": [9.0]}
        items = {"i": ["a", "b", "a"]}
        parser = DataParser(made, input_tile=3)
        assert parser.user_features == {"u", "h__i", "h__ago"}
        found = parser.parse_request(columns(user, items), 3)
        assert found["u.values"].shape == (1,)
        assert found["h__ago.values"].tolist() == [[-5], [-3]]
        assert found["m.values"].tolist() == [[2], [0], [2]]
        expected = DataParser(made).parse(columns(user, rows=[0] * 3) | columns(items))
        assert_same(tiling.untiled(found, parser.user_features), expected)
        # A clock of each candidate is no longer one of the user.
        clocks = columns(user, items) | columns({"now": [9.0, 10.0, 11.0]})
        found = parser.parse_request(clocks, 3)
        assert found.pop("batch_size").tolist() == 1
        expected = DataParser(made).parse(
            columns(user, rows=[0] * 3) | columns(items) | {"now": clocks["now"]}
        )
        assert_same(found, expected)


class TestForms:
    """Requests, tables and several requests are the same rows."""

    @pytest.fixture(scope="class")
    def plain(self, features):
        return DataParser(features).parse(repeated([(1, [0, 1]), (0, [2, 3, 4])]))

    def test_rows_of_their_own_users(self, features, plain):
        found = tiling.own_users(plain)
        assert found["batch_size"].tolist() == 1
        assert_same(tiling.untiled(found, OF_USER), plain)
        rows = repeated([(1, [0, 1]), (0, [2, 3, 4])])
        assert_same(DataParser(features, input_tile=2).parse(rows), found)

    @pytest.mark.parametrize(("row", "user"), [(0, 1), (3, 0)])
    def test_one_user(self, features, plain, row, user):
        found = tiling.one_user(plain, OF_USER, row)
        parser = DataParser(features, input_tile=3)
        assert_same(found, parser.parse_request(request(user), 5))

    def test_merged(self, features, plain):
        parser = DataParser(features, input_tile=3)
        requests = [
            parser.parse_request(request(1, [0, 1]), 2),
            parser.parse_request(request(0, [2, 3, 4]), 3),
        ]
        found = merged(requests, OF_USER)
        assert found["batch_size"].tolist() == [2, 3]
        assert found["u.lengths"].tolist() == [0, 1]
        assert_same(tiling.untiled(found, OF_USER), plain)
        with_table = merged([*requests, tiling.own_users(plain)], OF_USER)
        assert with_table["batch_size"].tolist() == [2, 3, 1, 1, 1, 1, 1]
        again = tiling.untiled(with_table, OF_USER)
        for key, value in plain.items():
            assert torch.equal(again[key], torch.cat([value, value])), key

    def test_rows_are_taken_in_any_order(self, features, plain):
        rows = [4, 0, 0, 2]
        pairs = [(1, 0), (1, 1), (0, 2), (0, 3), (0, 4)]
        expected = DataParser(features).parse(
            repeated([(pairs[row][0], [pairs[row][1]]) for row in rows])
        )
        found = {}
        for name in tiling.feature_names(plain):
            found |= tiling.take(plain, name, torch.tensor(rows))
        assert_same(found, expected)


class TestToBatch:
    REQUESTS = ((1, [0, 1]), (0, [2, 3, 4]), (0, [1]))

    @pytest.fixture(scope="class")
    def tiled(self, features):
        parser = DataParser(features, input_tile=3)
        found = [parser.parse_request(request(u, i), len(i)) for u, i in self.REQUESTS]
        return merged(found, OF_USER)

    @pytest.fixture(scope="class")
    def expected(self, features):
        """Of the untiled parser; its batch gives unweighted features weights of one."""
        parser = DataParser(features)
        return parser.to_batch(parser.parse(repeated(self.REQUESTS))).to_dict()

    def test_before_the_lookup(self, features, tiled, expected):
        batch = DataParser(features, input_tile=2).to_batch(tiled)
        assert batch.user_rows is None
        assert_same(batch.to_dict(), expected)

    def test_after_the_lookup(self, features, tiled, expected):
        batch = DataParser(features, input_tile=3).to_batch(tiled)
        assert batch.user_rows.features == OF_USER
        assert batch.user_rows.counts.tolist() == [2, 3, 1]
        assert batch.user_rows.owners.tolist() == [0, 0, 1, 1, 1, 2]
        found = batch.to_dict()
        assert sorted(found) == sorted(expected)
        for key, value in expected.items():
            name, _, part = key.rpartition(".")
            if name not in OF_USER or key == "age.values":
                assert torch.equal(found[key], value), key
            elif part == "weights" and key not in tiled:
                assert found[key].tolist() == [1] * len(tiled[f"{name}.values"])
            elif part == "lengths":
                assert found[key].tolist() == [*tiled[key].tolist(), 0, 0, 0]
            else:
                assert torch.equal(found[key], tiled[key]), key

    @pytest.mark.parametrize("mode", [2, 3])
    def test_rows_of_their_own_users(self, features, expected, mode):
        parser = DataParser(features, input_tile=mode)
        batch = parser.to_batch(expected, force_no_tile=True)
        assert batch.tile_size == 1
        assert batch.user_rows is None
        flat = batch.to_dict()
        assert_same(flat, tiling.own_users(expected))
        assert_same(parser.to_batch(flat).to_dict(), expected)

    def test_wrong_counts_are_no_scores(self, features, tiled):
        wrong = tiled | {"batch_size": torch.tensor([2, 3])}
        with pytest.raises(RuntimeError):
            DataParser(features, input_tile=2).to_batch(wrong)

    def test_user_rows_move_with_the_batch(self, features, tiled):
        batch = DataParser(features, input_tile=3).to_batch(tiled)
        moved = batch.to(torch.device("meta"))
        assert moved.user_rows.owners.device.type == "meta"
        assert moved.user_rows.counts.device.type == "meta"
        assert moved.user_rows.features == OF_USER
        assert Batch().to(torch.device("meta")).user_rows is None


def test_users_with_thousands_of_ids_are_not_repeated():
    """Mode 3 sends as many ids to the lookup as there are, mode 2 as many times as rows."""
    (made,) = features_of(
        'id_feature { feature_name: "u" expression: "user:u" num_buckets: 9 embedding_dim: 4 }'
    )
    ids = pa.array([np.zeros(1000, np.int64)])
    sizes = {}
    for mode in (2, 3):
        parser = DataParser([made], input_tile=mode)
        batch = parser.to_batch(parser.parse_request({"u": ids}, 50))
        sizes[mode] = len(batch.sparse_features["__BASE__"].values())
    assert sizes == {2: 50_000, 3: 1000}
