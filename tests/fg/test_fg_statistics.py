"""Missing and unknown values, lengths, ranges and loads, against counting in Python."""

import pickle

import fg_feed
import numpy as np
import pyarrow as pa
import pytest

from tzrec.fg import FgHandler
from tzrec.fg.distinct import DistinctCount
from tzrec.fg.kernels import use_backend
from tzrec.fg.statistics import FeatureStatistics


@pytest.fixture(params=["numba", "numpy"], autouse=True)
def backend(request):
    use_backend(request.param)
    yield request.param
    use_backend(None)


def id_entry(name, column, **options):
    return {
        "feature_type": "id_feature",
        "feature_name": name,
        "expression": f"item:{column}",
        **options,
    }


FEATURES = [
    id_entry("hashed", "tags", separator="|", hash_bucket_size=40, default_value="none"),
    id_entry("words", "tags", separator="|", vocab_list=["x", "y"], default_bucketize_value=0),
    id_entry("pairs", "tags", separator="|", vocab_dict={"x": 2, "z": 3}),
    id_entry("slot", "slot", num_buckets=5, default_value="0"),
    id_entry("slot_text", "slot_text", num_buckets=5),
    id_entry("stub", "tags", separator="|", hash_bucket_size=40, stub_type=True),
    {
        "feature_type": "raw_feature",
        "feature_name": "price",
        "expression": "item:price",
        "default_value": "7",
    },
    {
        "feature_type": "combo_feature",
        "feature_name": "cross",
        "expression": ["item:tags", "item:slot"],
        "separator": "|",
        "hash_bucket_size": 100,
    },
    {
        "feature_type": "sequence_id_feature",
        "feature_name": "recent",
        "expression": "user:recent_tags",
        "vocab_list": ["x", "y"],
        "separator": "|",
        "value_dim": 0,
        "default_value": "y",
        "sequence_length": 3,
    },
]


def rows_of(seed):
    table = fg_feed.feed(300, seed)
    slots = [None if v is None else str(v) for v in table["slot"].to_pylist()]
    return {name: table[name] for name in table.column_names} | {"slot_text": pa.array(slots)}


def statistics_of(*batches):
    handler = FgHandler({"features": FEATURES})
    statistics = FeatureStatistics([handler])
    for batch in batches:
        statistics.update(handler.process_arrow(batch))
    return statistics


def tokens(text, separator="|"):
    return [token for token in (text or "").split(separator) if token]


def test_missing_and_unknown():
    batches = [rows_of(1), rows_of(2)]
    tallies = statistics_of(*batches).tallies
    tags = [tokens(text) for batch in batches for text in batch["tags"].to_pylist()]
    slots = [slot for batch in batches for slot in batch["slot"].to_pylist()]
    assert list(tallies) == [
        entry["feature_name"] for entry in FEATURES if "stub_type" not in entry
    ]
    for name, known in (("words", "xy"), ("pairs", "xz")):
        tally = tallies[name]
        flat = [tag for row in tags for tag in row]
        assert tally.rows == 600
        assert tally.missing_rate == pytest.approx(sum(not row for row in tags) / 600)
        assert tally.unknown_rate == pytest.approx(
            sum(tag not in known for tag in flat) / len(flat)
        )
        assert tally.mean_length == pytest.approx(len(flat) / 600)
    outside = [slot for slot in slots if slot is not None and not 0 <= slot < 5]
    present = [slot for slot in slots if slot is not None]
    for name in ("slot", "slot_text"):
        assert tallies[name].missing == 600 - len(present)
        assert tallies[name].unknown_rate == pytest.approx(len(outside) / len(present))
    assert tallies["hashed"].unknown_rate is None
    assert tallies["hashed"].missing == sum(not row for row in tags)
    assert tallies["cross"].missing == sum(
        not row or slot is None for row, slot in zip(tags, slots, strict=True)
    )
    assert tallies["cross"].unknown_rate is None


def test_loads_are_the_shares_of_used_rows():
    batch = rows_of(3)
    handler = FgHandler({"features": FEATURES})
    tallies = statistics_of(batch).tallies
    found = handler.process_arrow(batch)
    assert tallies["hashed"].load == len(set(found["hashed"].values.tolist())) / 40
    assert tallies["words"].load is None


def test_ranges_hold_the_defaults():
    tally = statistics_of(rows_of(4)).tallies["price"]
    assert (tally.low, tally.high) == (0.0, 99.0)
    only_default = {**rows_of(4), "price": pa.array([None, float("nan")], pa.float64())}
    only_default = {name: column.slice(0, 2) for name, column in only_default.items()}
    tally = statistics_of(only_default).tallies["price"]
    assert (tally.low, tally.high, tally.missing) == (7.0, 7.0, 1)


def test_sequences_count_steps():
    batch = rows_of(5)
    tally = statistics_of(batch).tallies["recent"]
    rows = [[] if not text else text.split(";")[:3] for text in batch["recent_tags"].to_pylist()]
    values = [value for row in rows for step in row for value in tokens(step)]
    assert tally.missing == sum(not row for row in rows)
    assert tally.mean_length == pytest.approx(sum(map(len, rows)) / 300)
    assert tally.unknown == sum(value not in "xy" for value in values)
    assert tally.values == len(values)


def test_merging_equals_counting_together():
    one, two = statistics_of(rows_of(6)), statistics_of(rows_of(7))
    together = statistics_of(rows_of(6), rows_of(7))
    one = pickle.loads(pickle.dumps(one))
    one.merge(two)
    assert one.lines() == together.lines()


def test_a_handler_that_nobody_watches_counts_nothing():
    handler = FgHandler({"features": FEATURES})
    results = handler.process_arrow(rows_of(8))
    assert all(parsed.counts is None for parsed in results.values())
    watched = FgHandler({"features": FEATURES}, threads=3)
    FeatureStatistics([watched])
    counted = watched.process_arrow(rows_of(8))
    for name, parsed in results.items():
        assert counted[name].counts.rows == 300
        np.testing.assert_array_equal(parsed.values, counted[name].values)


def test_table():
    lines = statistics_of(rows_of(9)).lines()
    assert lines[0].split() == [
        "feature", "rows", "missing", "oov", "length", "distinct", "load", "min", "max",
    ]  # fmt: skip
    assert len(lines) == 1 + 8
    assert lines[1].startswith("hashed")
    ends = {len(line.rstrip("%")) for line in lines if "price" in line}
    assert len(ends) == 1


@pytest.mark.parametrize("distinct", [0, 1, 100, 60_000, 400_000, 3_000_000])
def test_estimates_of_large_tables(distinct):
    ids = np.arange(distinct, dtype=np.int64) * 104729
    count = DistinctCount(2**40)
    for part in np.array_split(np.concatenate([ids, ids[: distinct // 2]]), 5):
        count.add(part)
    assert count.estimate == pytest.approx(distinct, rel=0.03, abs=0.5)


def test_merged_estimates():
    ids = np.arange(500_000, dtype=np.int64)
    left, right = DistinctCount(2**30), DistinctCount(2**30)
    left.add(ids[:300_000])
    right.add(ids[200_000:])
    left.merge(right)
    assert left.estimate == pytest.approx(500_000, rel=0.03)


def test_small_tables_are_exact():
    count = DistinctCount(1000)
    count.add(np.array([5, 7, 5, 999]))
    count.add(np.array([7]))
    assert count.estimate == 3
