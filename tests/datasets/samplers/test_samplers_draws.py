"""What samplers draw, against their weights and small graphs."""

from __future__ import annotations

import collections
import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from sampler_tables import (
    HARD,
    KINDS,
    POSITIVE,
    WEIGHTS,
    batch_of,
    draw,
    ids,
    make_sampler,
    write_edges,
    write_items,
)
from scipy import stats

from tzrec.datasets.samplers.factory import create_sampler
from tzrec.errors import DataError
from tzrec.protos.data_pb2 import DataConfig

V1, V2 = ["negative_sampler", "hard_negative_sampler"], KINDS[1::2]


def fits(counts, probabilities):
    """Whether counts come from these probabilities (of which zeros must never occur)."""
    keys = [key for key, p in probabilities.items() if p > 0]
    assert set(counts) <= set(keys)
    if len(keys) == 1:
        return True
    total, number = sum(probabilities.values()), sum(counts.values())
    expected = [probabilities[key] / total * number for key in keys]
    return stats.chisquare([counts[key] for key in keys], expected).pvalue > 1e-4


def items_of(user):
    return {i for u, i in POSITIVE if u == user}


@pytest.mark.parametrize("kind", V1)
def test_draws_follow_the_weights(graph, kind):
    sampler = make_sampler(graph, kind, num_sample=50_000)
    rows = draw(sampler, [999], [0])
    assert fits(collections.Counter(ids(rows, 0, 50_000)), WEIGHTS)


@pytest.mark.parametrize("kind", V1)
@pytest.mark.parametrize("positives", [[10], [10, 3, 3, 999], [2, 3, 4, 5, 6, 7, 8, 9, 10]])
def test_positives_of_the_batch_are_not_drawn(graph, kind, positives):
    sampler = make_sampler(graph, kind, num_sample=30_000)
    rows = draw(sampler, positives, [4] * len(positives))
    weights = {i: w for i, w in WEIGHTS.items() if i not in positives}
    assert fits(collections.Counter(ids(rows, 0, 30_000)), weights)


def test_most_of_the_weight_excluded(tmp_path):
    """Where drawing anew would take long, the rest is listed."""
    weights = {1: 1e6, 2: 1e6, 3: 1.0, 4: 2.0, 5: 3.0}
    write_items(tmp_path / "items.txt", weights)
    sampler = make_sampler(tmp_path, num_sample=30_000)
    rows = draw(sampler, [1, 2])
    assert fits(collections.Counter(ids(rows)), {3: 1, 4: 2, 5: 3})


def test_all_items_are_positives(tmp_path, caplog):
    write_items(tmp_path / "items.txt", {1: 1, 2: 3, 3: 0})
    sampler = make_sampler(tmp_path, num_sample=20_000)
    for seed in range(2):
        rows = draw(sampler, [1, 2, 3], seed=seed)
        assert fits(collections.Counter(ids(rows)), {1: 1, 2: 3})
    assert caplog.text.count("are positives of a batch") == 1


def test_equal_weights_are_uniform(tmp_path):
    write_items(tmp_path / "items.txt", dict.fromkeys(range(1, 21), 2.5))
    sampler = make_sampler(tmp_path, num_sample=40_000)
    assert "items.cells" not in sampler.arrays
    rows = draw(sampler, [7])
    assert fits(collections.Counter(ids(rows)), {i: 1 for i in range(1, 21) if i != 7})
    rows = draw(make_sampler(tmp_path, num_sample=40_000, with_log_q=True), [7])
    assert fits(collections.Counter(ids(rows)), dict.fromkeys(range(1, 21), 1))
    np.testing.assert_allclose(rows.log_q, -math.log(20), rtol=1e-6)
    np.testing.assert_allclose(rows.positive_log_q, -math.log(20), rtol=1e-6)


def test_items_of_no_weight_are_not_drawn(tmp_path):
    write_items(tmp_path / "items.txt", {1: 0, 2: 1, 3: 0, 4: 3, 5: 0})
    rows = draw(make_sampler(tmp_path, num_sample=20_000), [9])
    assert fits(collections.Counter(ids(rows)), {2: 1, 4: 3})


@pytest.mark.parametrize("kind", V2)
def test_v2_draws_uniformly_what_is_no_edge_of_the_user(graph, kind):
    """Row by row: items with an edge, without the user's own; items 9 and 10 have no edge."""
    users, repeat = [0, 1, 2, 77], 20_000
    sampler = make_sampler(graph, kind, num_sample=repeat * len(users))
    rows = ids(draw(sampler, [3, 8, 999, 5], users), 0, repeat * len(users))
    for number, (user, own) in enumerate(zip(users, [3, 8, 999, 5], strict=True)):
        counts = collections.Counter(rows[number * repeat : (number + 1) * repeat])
        allowed = set(range(1, 9)) - items_of(user) - {own}
        assert fits(counts, dict.fromkeys(allowed, 1)), user


@pytest.mark.parametrize("kind", V2)
def test_v2_draws_of_all_rows_are_cut_at_n(graph, kind):
    """10 rows and 25 negatives: 3 draws a row, of which the last rows lose some."""
    sampler = make_sampler(graph, kind, num_sample=25)
    users = [i % 5 for i in range(10)]
    for seed in range(20):
        rows = ids(draw(sampler, [999] * 10, users, seed=seed), 0, 25)
        assert len(rows) == 25
        for number, item in enumerate(rows):
            assert item not in items_of(users[number // 3])


def test_v2_a_user_with_every_item(tmp_path, graph, caplog):
    write_edges(graph / "pos.txt", [(0, i) for i in range(1, 5)] + [(1, 2)])
    sampler = make_sampler(graph, "negative_sampler_v2", num_sample=20_000)
    counts = collections.Counter(ids(draw(sampler, [1], [0])))
    assert fits(counts, dict.fromkeys(range(1, 5), 1))
    assert "a positive edge to every item" in caplog.text
    # The own item counts as one more edge.
    write_edges(graph / "pos.txt", [(0, i) for i in range(1, 4)] + [(1, 4), (1, 2)])
    sampler = make_sampler(graph, "negative_sampler_v2", num_sample=1000)
    assert set(ids(draw(sampler, [9], [0]))) == {4}
    assert set(ids(draw(sampler, [4], [0]))) == {1, 2, 3, 4}


def test_v2_weights_and_repeated_edges_do_not_matter(graph):
    write_edges(graph / "pos.txt", [(0, 1)] * 50 + [(1, 2), (2, 3), (2, 10)])
    sampler = make_sampler(graph, "negative_sampler_v2", num_sample=30_000, with_log_q=True)
    rows = draw(sampler, [999], [0])
    assert fits(collections.Counter(ids(rows)), {2: 1, 3: 1, 10: 1})
    np.testing.assert_allclose(rows.log_q, -math.log(4), rtol=1e-6)
    np.testing.assert_allclose(rows.positive_log_q, -math.log(4), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS[2:])
def test_hard_negatives(graph, kind):
    sampler = make_sampler(graph, kind, num_sample=5, text="num_hard_sample: 4")
    rows = draw(sampler, [1, 2, 3, 4, 5], [1, 77, 0, 1, 4])
    assert rows.num_negatives == 5
    assert rows.hard_neg_indices.dtype == np.int32
    assert rows.hard_neg_indices.tolist() == [
        *([0, 0], [0, 1], [0, 2]),
        [2, 0],
        *([3, 0], [3, 1], [3, 2]),
    ]
    assert ids(rows, 5) == [1, 2, 3, 4, 1, 2, 3]
    assert rows.columns["cat"].to_pylist()[5:] == ["c1", "c2", "c3", "c4", "c1", "c2", "c3"]


@pytest.mark.parametrize("kind", KINDS[2:])
def test_a_batch_without_hard_negatives(graph, kind):
    sampler = make_sampler(graph, kind, num_sample=5)
    rows = draw(sampler, [1, 2], [4, 77])
    assert rows.hard_neg_indices is None
    assert len(rows.columns["item_id"]) == 5


@pytest.mark.parametrize("most", [1, 2, 5])
def test_too_many_hard_negatives_are_chosen_uniformly(graph, most):
    """User 2 has 6: every subset is as likely as every other."""
    text = f"num_hard_sample: {most}"
    sampler = make_sampler(graph, "hard_negative_sampler", num_sample=1, text=text)
    counts = collections.Counter()
    rows = draw(sampler, [1] * 6000, [2] * 6000)
    chosen = np.array(ids(rows, 1)).reshape(6000, most)
    counts.update(tuple(sorted(row)) for row in chosen.tolist())
    subsets = itertools.combinations([i for u, i in HARD if u == 2], most)
    assert fits(counts, dict.fromkeys(subsets, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_draws_the_same(graph, kind):
    sampler = make_sampler(graph, kind, num_sample=40, with_log_q=True)
    first, again, other = (draw(sampler, [1, 2], [2, 2], seed=seed) for seed in (3, 3, 4))
    assert first.columns == again.columns
    assert first.columns != other.columns
    np.testing.assert_array_equal(first.log_q, again.log_q)


@pytest.mark.parametrize("kind", V1)
def test_log_q_of_weights(graph, kind):
    sampler = make_sampler(graph, kind, num_sample=100, with_log_q=True)
    rows = draw(sampler, [1, 10, 999], [4, 4, 4])
    expected = [math.log(i / 55) for i in ids(rows, 0, 100)]
    np.testing.assert_allclose(rows.log_q, expected, rtol=1e-6)
    # An item that the table does not have is as likely as in a uniform draw.
    expected = [math.log(1 / 55), math.log(10 / 55), -math.log(10)]
    np.testing.assert_allclose(rows.positive_log_q, expected, rtol=1e-6)
    assert rows.log_q.dtype == rows.positive_log_q.dtype == np.float32


@pytest.mark.parametrize("kind", V1)
def test_draws_have_the_probabilities_that_are_told(graph, kind):
    sampler = make_sampler(graph, kind, num_sample=50_000, with_log_q=True)
    rows = draw(sampler, [10, 9, 9, 1], [4] * 4)
    drawn = ids(rows, 0, 50_000)
    told = np.exp(rows.log_q.astype(np.float64))
    assert fits(collections.Counter(drawn), dict(zip(drawn, told, strict=True)))


def test_log_q_of_an_item_of_no_weight_is_finite(tmp_path):
    write_items(tmp_path / "items.txt", {1: 0, 2: 1, 3: 3})
    rows = draw(make_sampler(tmp_path, with_log_q=True), [1])
    np.testing.assert_allclose(rows.positive_log_q, -math.log(3), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_log_q_only_when_asked(graph, kind):
    rows = draw(make_sampler(graph, kind), [1], [1])
    assert rows.log_q is None
    assert rows.positive_log_q is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "is_training", "expected"),
    [
        ("num_eval_sample: 3", True, 6),
        ("num_eval_sample: 3", False, 3),
        ("", False, 6),
        ("num_eval_sample: 0", False, 0),
    ],
)
def test_num_eval_sample_counts_where_it_is_written(graph, kind, text, is_training, expected):
    sampler = make_sampler(graph, kind, text=text, is_training=is_training)
    assert sampler.num_sample == expected
    assert draw(sampler, [1], [4]).num_negatives == expected


def test_the_size_that_a_plan_counts_with(graph):
    for kind, expected in zip(KINDS, [6, 6, 6 + 3 * 100, 6 + 3 * 100], strict=True):
        assert make_sampler(graph, kind, build=False).estimated_sample_num(100) == expected
    text = "num_hard_sample: 50"
    sampler = make_sampler(graph, "hard_negative_sampler", text=text, build=False)
    assert sampler.estimated_sample_num(100) == 6 + 8 * 100


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch(graph, kind):
    rows = draw(make_sampler(graph, kind), [], [])
    assert rows.num_negatives == 6
    assert rows.hard_neg_indices is None


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_a_batch(graph, kind):
    """Text, small integers and null (which is 0) are ids too."""
    sampler = make_sampler(graph, kind, num_sample=50)
    wanted = draw(sampler, [10, 0, 3], [2, 0, 2]).columns
    users = pa.array([2, None, 2], pa.int32())
    for items in (
        pa.array([10, None, 3], pa.int16()),
        pa.array([" 10", "", "3"]),
        pa.array(["10", None, "3"], pa.large_string()),
        pa.array(["10", None, "3"]).dictionary_encode(),
    ):
        batch = {"item_id": items, "user_id": users}
        assert sampler.get(batch, np.random.default_rng(0)).columns == wanted


def test_columns_that_are_no_ids(graph):
    sampler = make_sampler(graph)
    for column in (pa.array(["a"]), pa.array([1.5]), pa.array([[1]])):
        with pytest.raises(DataError, match=r"'item_id' \(.*cannot be the sampler's id") as caught:
            sampler.get({"item_id": column}, np.random.default_rng(0))
        assert "string_ids: true" in caught.value.hint
    with pytest.raises(DataError, match="'item_id' is not in the batch"):
        sampler.get({}, np.random.default_rng(0))


def test_no_sampler():
    config = text_format.Parse("dataset_type: ParquetDataset", DataConfig())
    assert create_sampler(config, {}, is_training=True) is None


def test_positives_of_any_number_stay_out(tmp_path):
    """Hash tables of the exclusion at sizes around powers of two."""
    write_items(tmp_path / "items.txt", {i: 1 + i % 7 for i in range(1, 2001)})
    sampler = make_sampler(tmp_path, num_sample=3000)
    random = np.random.default_rng(0)
    for size in (1, 7, 8, 9, 127, 128, 129, 1000, 1999):
        positives = random.permutation(2000)[:size] + 1
        batch = batch_of(np.append(positives, positives))
        assert not set(ids(sampler.get(batch, random))) & set(positives.tolist())
