"""What a shop writes down: the raw columns of the click log, for feature generation.

All of it follows from what the simulator knows or is drawn from a generator of its own, so the
ids, numbers and labels of the log do not depend on it. Some values are missing, as in any feed.

====================  ==================  ====================================================
price                 double              of the item
price_range           text                low, mid, high
published             int64               when the item was put on sale, seconds since 1970
title                 text                words: colour, thing, brand, model
tags                  text                ``new|gift``
tags_shown            list<bool>          which of the tags the page showed
event_time            int64               when the item was shown
category_clicks       map<text, int32>    the user's history: category → clicks
clicks_by_price       text                the same by price: ``3^low:2,mid:1|7^high:1``
interests             text                things and their share of the history: ``tent:0.6 lamp:0.4``
query                 text                what the user searched for
history__price        list<float>         of the items in the history, beside their ids
history__time         text                when they were clicked: ``1704067200;1704153600``
====================  ==================  ====================================================
"""  # noqa: E501

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tzrec.demo.clicklog import Impressions, Simulator

TOKENIZER = "tokenizer.json"

# The first thing of a category is in every title of it.
_THINGS = (
    ("lamp", "bulb", "shade"),
    ("boots", "laces", "socks"),
    ("novel", "atlas", "diary"),
    ("tent", "rope", "stove"),
    ("knife", "board", "pan"),
    ("guitar", "strings", "tuner"),
    ("bicycle", "helmet", "pump"),
    ("puzzle", "kite", "dice"),
    ("watch", "ring", "chain"),
    ("seeds", "spade", "pots"),
)
_COLOURS = ("red", "blue", "green", "black", "white", "grey")
_BRANDS = ("Nordo", "Velta", "Kima", "Oskar", "Tarn")
_TAGS = ("new", "gift", "handmade", "outdoor", "refurbished", "bestseller")
_RANGES = ("low", "mid", "high")
_RANGE_EDGES = (-0.43, 0.43)
_MODELS = 20
_DAY = 86_400

_MISSING = {"price": 0.01, "title": 0.01, "query": 0.1, "profile": 0.02, "clicked price": 0.03}

Ints = NDArray[np.int64]


class Feed:
    """Makes the raw columns of rows.

    Args:
        simulator: who made the rows; fresh, so that its first clicks are the first of all.
    """

    def __init__(self, simulator: Simulator) -> None:
        shop = simulator.shop
        self._rng = rng = np.random.default_rng([shop.seed, 1])
        self._category, self._num_categories = simulator.category, shop.num_categories
        self._taste = simulator.taste
        self.price = np.round(20 * np.exp(simulator.log_price), 2)
        self._range = np.searchsorted(_RANGE_EDGES, simulator.log_price)
        before = rng.integers(0, 365 * _DAY, shop.num_items)
        self._published = simulator.clicked_at[simulator.clicked_at > 0].min() - before
        self._head = np.array([_THINGS[c % len(_THINGS)][0] for c in range(shop.num_categories)])
        titles = [self._title(int(category)) for category in simulator.category]
        self._titles = pa.array(titles)
        self._num_tags = rng.integers(1, 4, shop.num_items)
        chosen = [rng.permutation(len(_TAGS))[:n] for n in self._num_tags]
        self._tags = pa.array(["|".join(_TAGS[i] for i in tags) for tags in chosen])

    def _title(self, category: int) -> str:
        rng = self._rng
        head, *others = _THINGS[category % len(_THINGS)]
        more = f" with {rng.choice(others)}" if rng.random() < 0.5 else ""
        words = f"{rng.choice(_COLOURS)} {head}{more}"
        return f"{words} {rng.choice(_BRANDS)} {rng.integers(1, _MODELS)}"

    def add_columns(self, table: pa.Table, rows: Impressions) -> pa.Table:
        """Returns the table of ``rows`` with the raw columns behind its own."""
        for columns in (self._of_items(rows), self._of_users(rows), self._of_clicks(rows)):
            for name, column in columns.items():
                table = table.append_column(name, column)
        return table

    def _of_items(self, rows: Impressions) -> dict[str, pa.Array]:
        item = rows.columns["item_id"]
        num_tags = self._num_tags[item]
        shown = self._rng.random(int(num_tags.sum())) < 0.7
        return {
            "price": pa.array(self.price[item], mask=self._missing("price", len(item))),
            "price_range": pa.array(np.array(_RANGES)[self._range[item]]),
            "published": pa.array(self._published[item]),
            "title": _hide(self._titles.take(pa.array(item)), self._missing("title", len(item))),
            "tags": self._tags.take(pa.array(item)),
            "tags_shown": _lists(pa.array(shown), num_tags),
            "event_time": pa.array(rows.time),
        }

    def _of_users(self, rows: Impressions) -> dict[str, pa.Array]:
        num_rows = len(rows.label)
        counts = self._counts(rows, np.zeros_like(self._range), 1)[:, :, 0]
        by_price = self._counts(rows, self._range, len(_RANGES))
        user = rows.columns["user_id"]
        wanted = self._taste[user, self._rng.integers(0, self._taste.shape[1], num_rows)]
        colour = self._rng.integers(0, len(_COLOURS), num_rows)
        searches = [f"{c} {thing}" for c in _COLOURS for thing in self._head]
        query = pa.array(searches).take(pa.array(colour * self._num_categories + wanted))
        unknown = self._missing("profile", num_rows)
        return {
            "category_clicks": _hide(self._click_map(counts), unknown),
            "clicks_by_price": _hide(_nested_text(by_price), unknown),
            "interests": _hide(self._interests(counts), unknown),
            "query": _hide(query, self._missing("query", num_rows)),
        }

    def _of_clicks(self, rows: Impressions) -> dict[str, pa.Array]:
        known = rows.history >= 0
        steps = known.sum(axis=1)
        items = rows.history[known]
        price = pa.array(
            self.price[items].astype(np.float32), mask=self._missing("clicked price", len(items))
        )
        times = pa.array(rows.history_time[known]).cast(pa.string())
        return {
            "history__price": _lists(price, steps),
            "history__time": pc.binary_join(_lists(times, steps), ";"),
        }

    def _counts(self, rows: Impressions, part: Ints, num_parts: int) -> Ints:
        """Returns (B, categories, parts) clicks of the history."""
        row, slot = np.nonzero(rows.history >= 0)
        items = rows.history[row, slot]
        shape = (len(rows.label), self._num_categories, num_parts)
        cell = np.ravel_multi_index((row, self._category[items], part[items]), shape)
        return np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape)

    def _click_map(self, counts: Ints) -> pa.Array:
        row, category = np.nonzero(counts)
        keys = pa.array(category).cast(pa.string())
        values = pa.array(counts[row, category].astype(np.int32))
        return pa.MapArray.from_arrays(_offsets((counts > 0).sum(axis=1)), keys, values)

    def _interests(self, counts: Ints) -> pa.Array:
        row, category = np.nonzero(counts)
        total = counts.sum(axis=1)[row]
        pairs = _texts(
            lambda c, n, of: f"{self._head[c]}:{n / of:.2f}", category, counts[row, category], total
        )
        return pc.binary_join(_lists(pairs, (counts > 0).sum(axis=1)), " ")

    def _missing(self, what: str, num_rows: int) -> NDArray[np.bool_]:
        return self._rng.random(num_rows) < _MISSING[what]

    def write_tokenizer(self, path: Path) -> None:
        """Writes a tokenizer of the titles' words, in the format of Hugging Face."""
        words = [word for things in _THINGS for word in things]
        words += [*_COLOURS, *(brand.lower() for brand in _BRANDS), "with"]
        words += [str(number) for number in range(1, _MODELS)]
        vocabulary = {word: number for number, word in enumerate(["[UNK]", *dict.fromkeys(words)])}
        tokenizer: dict[str, Any] = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        }
        path.write_text(json.dumps(tokenizer, indent=1) + "\n")


def _nested_text(counts: Ints) -> pa.Array:
    """Returns ``category^range:clicks,…|…`` of (B, categories, ranges) clicks."""
    row, category, part = np.nonzero(counts)
    pairs = _texts(lambda p, n: f"{_RANGES[p]}:{n}", part, counts[row, category, part])
    parts_per_category = (counts > 0).sum(axis=2)
    clicked = parts_per_category > 0
    inner = pc.binary_join(_lists(pairs, parts_per_category[clicked]), ",")
    keys = pa.array(np.nonzero(clicked)[1]).cast(pa.string())
    outer = pc.binary_join_element_wise(keys, inner, "^")
    return pc.binary_join(_lists(outer, clicked.sum(axis=1)), "|")


def _texts(text: Callable[..., str], *numbers: Ints) -> pa.Array:
    """Returns ``text(*numbers)`` of each entry; each combination is made once."""
    shape = [int(part.max(initial=0)) + 1 for part in numbers]
    codes, index = np.unique(np.ravel_multi_index(numbers, shape), return_inverse=True)
    different = zip(*(part.tolist() for part in np.unravel_index(codes, shape)), strict=True)
    return pa.array([text(*entry) for entry in different], pa.string()).take(pa.array(index))


def _hide(column: pa.Array, hidden: NDArray[np.bool_]) -> pa.Array:
    """Returns the column with nulls in the hidden rows."""
    return column.take(pa.array(np.arange(len(column)), mask=hidden))


def _lists(values: pa.Array, lengths: Ints) -> pa.Array:
    return pa.ListArray.from_arrays(_offsets(lengths), values)


def _offsets(lengths: Ints) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
