"""The raw columns of the click log say the same as its ids and numbers."""

import collections
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_demo_clicklog import SMALL

from tzrec.demo.clicklog import DAY, START, Simulator, write_click_log
from tzrec.demo.feed import TOKENIZER

ENCODED = (
    "clicked user_id segment hour item_id category log_price history__item_id history__category"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    write_click_log(folder, SMALL)
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    return pq.read_table(folder / "test.parquet").to_pylist()


def test_the_encoded_columns_do_not_depend_on_the_raw_ones(folder):
    simulator = Simulator(SMALL)
    for split, num_rounds in zip(("train", "eval", "test"), SMALL.num_rounds, strict=True):
        table = simulator.play(num_rounds).to_table(simulator.category)
        assert table.column_names == ENCODED.split()
        if split != "train":  # that one is shuffled
            assert pq.read_table(folder / f"{split}.parquet").select(table.column_names) == table


def test_prices_and_ranges(rows):
    items = {}
    for row in rows:
        price = 20 * np.exp(row["log_price"])
        assert row["price"] is None or row["price"] == pytest.approx(price, abs=0.01)
        wanted = "low" if row["log_price"] < -0.43 else "mid" if row["log_price"] < 0.43 else "high"
        assert row["price_range"] == wanted
        items.setdefault(row["item_id"], set()).add((row["published"], row["tags"]))
    assert all(len(facts) == 1 for facts in items.values())


def test_times(rows):
    days = [(row["event_time"] - START) // DAY for row in rows]
    assert days == sorted(days)
    assert set(days) == set(
        range(sum(SMALL.num_rounds) - SMALL.num_rounds[2], sum(SMALL.num_rounds))
    )
    for row in rows:
        assert (row["event_time"] - START) % DAY // 3600 == row["hour"]
        times = [int(time) for time in row["history__time"].split(";")]
        assert len(times) == len(row["history__item_id"]) == len(row["history__price"])
        assert times == sorted(times)
        assert row["published"] <= times[0]
        assert times[-1] < row["event_time"] - row["hour"] * 3600


def test_clicks_by_category_and_price(rows):
    for row in rows:
        if row["category_clicks"] is None:
            assert row["clicks_by_price"] is None
            assert row["interests"] is None
            continue
        wanted = collections.Counter(map(str, row["history__category"]))
        assert dict(row["category_clicks"]) == wanted
        found = collections.Counter()
        for part in row["clicks_by_price"].split("|"):
            category, ranges = part.split("^")
            for pair in ranges.split(","):
                assert pair.split(":")[0] in ("low", "mid", "high")
                found[category] += int(pair.split(":")[1])
        assert found == wanted
        shares = [float(pair.split(":")[1]) for pair in row["interests"].split(" ")]
        assert sum(shares) == pytest.approx(1, abs=0.05)
        assert len(shares) == len(wanted)


def test_prices_of_the_history_are_those_of_the_items(rows):
    price = {row["item_id"]: row["price"] for row in rows if row["price"] is not None}
    known = 0
    for row in rows:
        for item, found in zip(row["history__item_id"], row["history__price"], strict=True):
            if item in price and found is not None:
                known += 1
                assert found == pytest.approx(price[item])
    assert known > 500


def test_titles_and_searches_are_about_the_category(rows):
    head = {}
    for row in rows:
        if row["title"]:
            head.setdefault(row["category"], row["title"].split(" ")[1])
            assert row["title"].split(" ")[1] == head[row["category"]]
    assert len(set(head.values())) == len(head)
    asked = [row["query"].split(" ")[1] for row in rows if row["query"]]
    assert set(asked) & set(head.values())
    for row in rows:
        assert len(row["tags"].split("|")) == len(row["tags_shown"])


def test_some_values_are_missing(folder):
    table = pq.read_table(folder / "train.parquet")
    for name in ("price", "title", "query", "category_clicks", "interests"):
        share = table[name].null_count / table.num_rows
        assert 0 < share < 0.2, name
    items = table["history__price"].combine_chunks().flatten()
    assert 0 < items.null_count / len(items) < 0.1
    for name in ENCODED.split():
        assert table[name].null_count == 0, name


def test_the_tokenizer_knows_every_title(folder):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
    vocabulary = json.loads((folder / TOKENIZER).read_text())["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    titles = pq.read_table(folder / "train.parquet")["title"].drop_null().unique().to_pylist()
    for title in titles:
        assert vocabulary["[UNK]"] not in tokenizer.encode(title.lower()).ids
