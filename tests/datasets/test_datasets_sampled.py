"""Joining the rows of a sampler to the columns of a batch, with a sampler that draws by a rule."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from datasets_fakes import DenseFake, IdFake
from numpy.testing import assert_array_equal

from tzrec.batch import NEG_DATA_GROUP
from tzrec.datasets.candidates import CandidateSequence
from tzrec.datasets.data_parser import DataParser
from tzrec.datasets.sampled import RowJoiner
from tzrec.datasets.samplers.base import SampledRows
from tzrec.datasets.samplers.tdm_join import TreeRows
from tzrec.errors import ConfigError, DataError
from tzrec.features.mask import NEG_SAMPLE_MASK, SAMPLE_MASK

STREAM = (7, 0, 3, 0, 5, 0)


class FakeSampler:
    """Remembers what it was asked, and gives what it was made with."""

    def __init__(self, rows, item="item", user=None):
        self.rows = rows
        self.item_id_field = item
        self.user_id_field = user
        self.asked = []

    def get(self, columns, rng):
        self.asked.append(
            ({name: column.to_pylist() for name, column in columns.items()}, rng.integers(1 << 60))
        )
        return self.rows


def rows(**columns):
    (number,) = {len(values) for values in columns.values()}
    return SampledRows({name: pa.array(values) for name, values in columns.items()}, number)


BATCH = {
    "user": pa.array(["a", "b", "c"]),
    "item": pa.array([1, 2, 3]),
    "price": pa.array([0.1, None, 0.3]),
    "tags": pa.array([[1, 2], None, []], pa.list_(pa.int64())),
    "label": pa.array([1, 0, 1]),
}


def joined(joiner, columns=BATCH, stream=STREAM):
    return joiner.join(columns, joiner.draw(columns, stream), stream)


def test_item_columns_get_the_rows_and_no_others_do():
    drawn = SampledRows(
        {
            "item": pa.array([8, 9]),
            "tags": pa.array([None, [5]], pa.list_(pa.int64())),
            "unread": pa.array(["x", "y"]),
        },
        num_negatives=1,
        hard_neg_indices=np.array([[2, 0]], np.int32),
        log_q=np.array([-1.5], np.float32),
        positive_log_q=np.array([-1, -2, -3], np.float32),
    )
    sampler = FakeSampler(drawn, user="user")
    out = joined(RowJoiner(sampler, ["user", "item", "tags"]))
    assert {name: column.to_pylist() for name, column in out.items() if name in BATCH} == {
        "user": ["a", "b", "c"],
        "item": [1, 2, 3, 8, 9],
        "price": [0.1, None, 0.3],
        "tags": [[1, 2], None, [], None, [5]],
        "label": [1, 0, 1],
    }
    assert out["hard_neg_indices"].tolist() == [[2, 0]]
    assert out["neg_log_q"].tolist() == [-1.5]
    assert out["pos_log_q"].tolist() == [-1, -2, -3]
    assert set(out) == {*BATCH, "hard_neg_indices", "neg_log_q", "pos_log_q"}
    assert sampler.asked[0][0] == {"item": [1, 2, 3], "user": ["a", "b", "c"]}


def test_a_column_that_no_feature_reads_keeps_its_rows():
    out = joined(RowJoiner(FakeSampler(rows(item=[8], price=[0.5])), ["price"]))
    assert len(out["item"]) == 3
    assert len(out["price"]) == 4


def test_draws_depend_on_the_stream_alone():
    sampler = FakeSampler(rows(item=[8]))
    joiner = RowJoiner(sampler, ["item"])
    for stream in (STREAM, STREAM, (*STREAM, 0), (8, *STREAM[1:])):
        joiner.draw(BATCH, stream)
    first, again, part, seed = (random for _, random in sampler.asked)
    assert first == again
    assert len({first, part, seed}) == 3


class TestMasks:
    MANY = rows(item=list(range(5000)))

    def masks(self, probs, columns=BATCH):
        return joined(RowJoiner(FakeSampler(self.MANY), ["item"], mask_probs=probs), columns)

    def test_sampled_rows_have_their_own_probability(self):
        columns = {**BATCH, SAMPLE_MASK: pa.array([True, False, True])}
        mask = self.masks((0.5, 0.2), columns)[NEG_SAMPLE_MASK].to_pylist()
        assert mask[:3] == [True, False, True]
        assert len(mask) == 5003
        # 4 standard deviations of a mean of 5000 draws.
        assert abs(np.mean(mask[3:]) - 0.2) < 4 * (0.2 * 0.8 / 5000) ** 0.5

    def test_either_may_be_0(self):
        only_sampled = self.masks((0.0, 1.0))
        assert only_sampled[NEG_SAMPLE_MASK].to_pylist() == [False] * 3 + [True] * 5000
        assert SAMPLE_MASK not in only_sampled
        columns = {**BATCH, SAMPLE_MASK: pa.array([True, False, True])}
        only_batch = self.masks((0.5, 0.0), columns)[NEG_SAMPLE_MASK].to_pylist()
        assert only_batch == [True, False, True] + [False] * 5000
        assert NEG_SAMPLE_MASK not in self.masks((0.0, 0.0))

    def test_they_are_those_of_the_stream(self):
        joiner = RowJoiner(FakeSampler(self.MANY), ["item"], mask_probs=(0.0, 0.5))
        first, again = (joined(joiner)[NEG_SAMPLE_MASK] for _ in range(2))
        assert first == again
        assert first != joined(joiner, stream=(*STREAM, 1))[NEG_SAMPLE_MASK]

    def test_nodes_of_a_tree(self):
        """Rows and their positives are masked alike, negatives otherwise."""
        nodes = TreeRows({"item": pa.array(range(9))}, 3, num_positives=1, num_negatives=2)
        columns = {**BATCH, SAMPLE_MASK: pa.array([True, True, True])}

        def masks(*probs):
            return joined(
                RowJoiner(FakeSampler(nodes), ["item"], labels=["label"], mask_probs=probs),
                columns,
            )

        assert masks(0.0, 1.0)[SAMPLE_MASK].to_pylist() == [False] * 6 + [True] * 6
        assert masks(1.0, 0.0)[SAMPLE_MASK].to_pylist() == [True] * 6 + [False] * 6


def test_a_tree_changes_all_columns():
    nodes = TreeRows({"item": pa.array(range(10, 19))}, 3, num_positives=1, num_negatives=2)
    out = joined(RowJoiner(FakeSampler(nodes), ["user", "item"], labels=["label"]))
    assert out["item"].to_pylist() == [1, 2, 3, *range(10, 19)]
    assert out["label"].to_pylist() == [1] * 6 + [0] * 6
    assert out["user"].to_pylist() == ["a", "b", "c"] * 2 + ["a", "a", "b", "b", "c", "c"]


TEXT = {
    "user": pa.array(["a", "b"]),
    "cand__id": pa.array(["1|2", "3"]),
    "cand__tag": pa.array(["x|y", "z"]),
}


class TestCandidates:
    SEQUENCE = CandidateSequence("cand", "|")

    def joiner(self, drawn, **options):
        return RowJoiner(
            FakeSampler(drawn, item="cand__id", user="user"),
            ["cand__id", "cand__tag"],
            sequence=self.SEQUENCE,
            **options,
        )

    def test_text(self):
        joiner = self.joiner(rows(id=["8", "9"], tag=["p", None]), mask_probs=(0.0, 0.5))
        out = joined(joiner, TEXT)
        assert out["cand__id"].to_pylist() == ["1|2", "3|8|9"]
        assert out["cand__tag"].to_pylist() == ["x|y", "z|p|"]
        assert out["user"].to_pylist() == ["a", "b"]
        assert_array_equal(out["cand_pos_lengths"], np.array([2, 1], np.int32))
        assert out["cand_pos_lengths"].dtype == np.int32
        assert NEG_SAMPLE_MASK not in out
        assert joiner.sampler.asked[0][0] == {
            "cand__id": ["1", "2", "3"],
            "user": ["a", "a", "b"],
        }

    def test_lists(self):
        columns = {
            "user": pa.array(["a", "b", "c"]),
            "cand__id": pa.array([[1, 2], None, [3]]),
            "cand__tag": pa.array([[["x"], []], None, [["y", "z"]]]),
        }
        # What is cut from a larger table must do as well.
        columns = {name: pa.concat_arrays([c[:1], c])[1:] for name, c in columns.items()}
        drawn = rows(id=[8], tag=[["p", "q"]])
        out = joined(self.joiner(drawn), columns)
        assert out["cand__id"].to_pylist() == [[1, 2], None, [3, 8]]
        assert out["cand__tag"].to_pylist() == [[["x"], []], None, [["y", "z"], ["p", "q"]]]
        assert out["cand_pos_lengths"].tolist() == [2, 0, 1]

    def test_a_last_row_of_no_candidates_gets_them_too(self):
        columns = {"user": pa.array(["a"]), "cand__id": pa.array([None], pa.list_(pa.int64()))}
        out = joined(self.joiner(rows(id=[8])), columns)
        assert out["cand__id"].to_pylist() == [[8]]
        assert out["cand_pos_lengths"].tolist() == [0]

    def test_no_rows_get_none(self):
        columns = {name: column[:0] for name, column in TEXT.items()}
        out = joined(self.joiner(rows(id=["8"], tag=["p"])), columns)
        assert len(out["cand__id"]) == len(out["cand_pos_lengths"]) == 0

    @pytest.mark.parametrize("empty", ["", None])
    def test_empty_text(self, empty):
        columns = {"user": pa.array(["a", "b"]), "cand__id": pa.array(["1", empty])}
        with pytest.raises(DataError, match="column 'cand__id': row 1 of the batch is empty"):
            self.joiner(rows(id=["8"])).draw(columns, STREAM)

    def test_null_text_of_an_attribute(self):
        columns = TEXT | {"cand__tag": pa.array(["x|y", None])}
        with pytest.raises(DataError, match="column 'cand__tag': row 1 of the batch is null"):
            joined(self.joiner(rows(id=["8"], tag=["p"])), columns)

    def test_columns_and_types(self):
        assert self.SEQUENCE.column("id") == self.SEQUENCE.column("cand__id") == "cand__id"
        assert self.SEQUENCE.item_type("c", pa.list_(pa.int64())) == pa.int64()
        assert self.SEQUENCE.item_type("c", pa.string()) == pa.string()
        with pytest.raises(DataError, match="column 'c' of the candidates is int64"):
            self.SEQUENCE.item_type("c", pa.int64())

    def test_which_sequence(self):
        class Reader(IdFake):
            is_grouped_sequence = False
            sequence_name = None
            sequence_delim = "|"

        plain, own, grouped = Reader("id"), Reader("own"), Reader("sub", inputs=["cand__id"])
        own.is_sequence = grouped.is_sequence = grouped.is_grouped_sequence = True
        grouped.sequence_name = "cand"
        features = [plain, own, grouped]
        assert CandidateSequence.of("id", features) is None
        assert CandidateSequence.of("nobody", features) is None
        found = CandidateSequence.of("cand__id", features)
        assert (found.name, found.delimiter) == ("cand", "|")
        with pytest.raises(ConfigError, match="'own' is read by the sequence 'own'"):
            CandidateSequence.of("own", features)


PARSED = {
    "user": pa.array([1, 2]),
    "item": pa.array([3, 4, 5]),
    "price": pa.array([0.1, 0.2, 0.3]),
    "label": pa.array([1.0, 0.0]),
    "hard_neg_indices": np.array([[0, 0]], np.int32),
    "neg_log_q": np.array([-1.0], np.float32),
}
FEATURES = [
    IdFake("user"),
    IdFake("item", data_group=NEG_DATA_GROUP),
    DenseFake("price", data_group=NEG_DATA_GROUP),
]


class TestParser:
    def batch(self, **options):
        parser = DataParser(FEATURES, labels=["label"], **options)
        return parser.to_batch(parser.parse(PARSED))

    def test_each_group_has_its_rows(self):
        batch = self.batch(sampler_type="HardNegativeSampler")
        assert batch.sparse_features["__BASE__"].lengths().tolist() == [1, 1]
        assert batch.sparse_features["__NEG__"].values().tolist() == [3, 4, 5]
        assert batch.dense_features["__NEG__"].values().shape == (3, 1)
        assert batch.labels["label"].tolist() == [1, 0]
        assert batch.additional_infos["hard_neg_indices"].tolist() == [[0, 0]]
        assert batch.additional_infos["neg_log_q"].tolist() == [-1]
        assert set(batch.additional_infos) == {"hard_neg_indices", "neg_log_q"}

    def test_infos_go_through_the_flat_form(self):
        parser = DataParser(FEATURES, labels=["label"], sampler_type="HardNegativeSampler")
        flat = parser.to_batch(parser.parse(PARSED)).to_dict()
        assert parser.to_batch(flat).additional_infos["hard_neg_indices"].tolist() == [[0, 0]]

    def test_without_a_sampler_such_columns_are_none_of_its(self):
        assert self.batch().additional_infos == {}

    def test_one_group_pads_what_has_fewer_rows(self):
        batch = self.batch(sampler_type="NegativeSampler", force_base_data_group=True)
        ids = batch.sparse_features["__BASE__"]
        assert ids["user"].lengths().tolist() == [1, 1, 0]
        assert ids["item"].lengths().tolist() == [1, 1, 1]
        assert batch.dense_features["__BASE__"].values().shape == (3, 1)
        assert batch.labels["label"].tolist() == [1, 0]
