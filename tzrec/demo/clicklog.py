"""A click log with a planted structure, whose true click probabilities are known.

A small shop shows items to users and writes down what was clicked. The probability of a click
is a plain function of what a row says (`true_logit`), so a model can learn it, and the AUC of
the true probabilities is the best AUC that any model can reach: the Bayes AUC.

::

    logit = BIAS + activity(user) + quality(item)
          + TASTE * share(category in click history)   people click what they clicked before,
          - PRICE * |log price - budget(segment)|      what they can afford,
          + season(category, hour)                     and some things only in the evening

Beside the ids and numbers of the formula, the log has what a shop would write down itself (prices,
times, titles, clicks by category, …): see `tzrec.demo.feed`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tzrec.demo.feed import TOKENIZER, Feed

BIAS = -1.6
TASTE = 4.0
PRICE = 1.2
EVENING = 1.2

SPLITS = ("train", "eval", "test")

# A round is a day; the first one is 2024-01-01.
START = 1_704_067_200
DAY, HOUR = 86_400, 3_600
_FIRST_CLICKS = 3


@dataclasses.dataclass(frozen=True)
class Shop:
    """The planted world: who there is, what is sold, and how large the log is.

    Attributes:
        num_users: users, who all see one item in each round.
        num_items: items; popularity falls with the id.
        num_categories: categories; each user starts with a taste for three of them.
        num_segments: user segments; each has its own budget.
        max_history: clicks that the log remembers for a user.
        num_rounds: rounds in the train, eval and test part; a round has ``num_users`` rows.
        seed: makes the same log every time.
    """

    num_users: int = 500
    num_items: int = 200
    num_categories: int = 10
    num_segments: int = 6
    max_history: int = 20
    num_rounds: tuple[int, int, int] = (480, 48, 48)
    seed: int = 7


@dataclasses.dataclass(frozen=True)
class Impressions:
    """Rows of the log. B rows, H history slots.

    Attributes:
        columns: column name -> (B,) integers or floats.
        history: (B, H) clicked items, oldest first, -1 where there is none yet.
        history_time: (B, H) when they were clicked, seconds since 1970.
        time: (B,) when the item was shown, seconds since 1970.
        probability: (B,) true click probability.
        label: (B,) 0 or 1.
    """

    columns: dict[str, np.ndarray]
    history: np.ndarray
    history_time: np.ndarray
    time: np.ndarray
    probability: np.ndarray
    label: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Impressions]) -> Impressions:
        """Returns the rows of all parts."""
        names = [field.name for field in dataclasses.fields(cls) if field.name != "columns"]
        arrays = {n: np.concatenate([getattr(part, n) for part in parts]) for n in names}
        columns = {
            name: np.concatenate([part.columns[name] for part in parts])
            for name in parts[0].columns
        }
        return cls(columns, **arrays)

    def to_table(self, category: np.ndarray) -> pa.Table:
        """Returns the rows as the demo's config reads them.

        Args:
            category: (num_items,) category of each item.
        """
        known = self.history >= 0
        offsets = np.concatenate([[0], np.cumsum(known.sum(axis=1))]).astype(np.int32)
        items = self.history[known]
        columns = {"clicked": pa.array(self.label.astype(np.float32))}
        columns |= {name: pa.array(values) for name, values in self.columns.items()}
        for name, values in {"item_id": items, "category": category[items]}.items():
            columns[f"history__{name}"] = pa.ListArray.from_arrays(
                pa.array(offsets), pa.array(values)
            )
        return pa.table(columns)


@dataclasses.dataclass(frozen=True)
class ClickLog:
    """Where the log lies and what is true about it.

    Attributes:
        paths: split name -> Parquet file.
        num_rows: split name -> rows.
        click_rate: share of clicked rows in the test part.
        bayes_auc: AUC of the true probabilities on the test part.
    """

    paths: dict[str, Path]
    num_rows: dict[str, int]
    click_rate: float
    bayes_auc: float


class Simulator:
    """Shows items to users, round by round; what is clicked enters the user's history.

    Args:
        shop: sizes and seed.
    """

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self._rng = rng = np.random.default_rng(shop.seed)
        # Items: low ids are shown more often.
        self.category = rng.integers(0, shop.num_categories, shop.num_items)
        self.quality = rng.normal(0, 0.7, shop.num_items)
        self.log_price = rng.normal(0, 1, shop.num_items)
        popularity = 1.0 / (10 + np.arange(shop.num_items))
        self._popularity = popularity / popularity.sum()
        # Users.
        self.segment = rng.integers(0, shop.num_segments, shop.num_users)
        self.activity = rng.normal(0, 0.3, shop.num_users)
        self.budget = np.linspace(-1.5, 1.5, shop.num_segments)
        self.evening = rng.random(shop.num_categories) < 0.3
        self.taste = rng.integers(0, shop.num_categories, (shop.num_users, 3))
        self._items_of = [np.flatnonzero(self.category == c) for c in range(shop.num_categories)]
        self.history = np.full((shop.num_users, shop.max_history), -1)
        self.clicked_at = np.zeros((shop.num_users, shop.max_history), dtype=np.int64)
        everybody = np.arange(shop.num_users)
        for self._day in range(-_FIRST_CLICKS, 0):
            noon = self._time(everybody, np.full(shop.num_users, 12))
            self._remember(everybody, self._items_by_taste(), noon)

    def true_logit(
        self, user: np.ndarray, item: np.ndarray, hour: np.ndarray, history: np.ndarray
    ) -> np.ndarray:
        """The formula at the top of this module; all arguments have B rows."""
        category = self.category[item]
        known = history >= 0
        same = known & (self.category[history] == category[:, None])
        share = same.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        gap = np.abs(self.log_price[item] - self.budget[self.segment[user]])
        late = np.where(hour >= 18, EVENING, -EVENING / 2)
        season = np.where(self.evening[category], late, 0.0)
        return (
            BIAS + self.activity[user] + self.quality[item] + TASTE * share - PRICE * gap + season
        )

    def play(self, num_rounds: int) -> Impressions:
        """Plays ``num_rounds`` rounds and returns their ``num_rounds * num_users`` rows."""
        return Impressions.joined([self._play_round() for _ in range(num_rounds)])

    def _play_round(self) -> Impressions:
        rng, shop = self._rng, self.shop
        self._day += 1
        user = rng.permutation(shop.num_users)
        popular = rng.choice(shop.num_items, shop.num_users, p=self._popularity)
        item = np.where(rng.random(shop.num_users) < 0.5, popular, self._items_by_taste()[user])
        hour = rng.integers(0, 24, shop.num_users)
        history, history_time = self.history[user], self.clicked_at[user]
        time = self._time(user, hour)
        probability = 1 / (1 + np.exp(-self.true_logit(user, item, hour, history)))
        label = rng.random(shop.num_users) < probability
        self._remember(user[label], item[label], time[label])
        columns = {
            "user_id": user,
            "segment": self.segment[user],
            "hour": hour,
            "item_id": item,
            "category": self.category[item],
            "log_price": self.log_price[item].astype(np.float32),
        }
        # The history of a row is what was known before its own click.
        return Impressions(columns, history, history_time, time, probability, label)

    def _items_by_taste(self) -> np.ndarray:
        """One item for each user, from one of the user's favourite categories."""
        shop, rng = self.shop, self._rng
        favourite = self.taste[np.arange(shop.num_users), rng.integers(0, 3, shop.num_users)]
        item = np.empty(shop.num_users, dtype=np.int64)
        for category, candidates in enumerate(self._items_of):
            users = np.flatnonzero(favourite == category)
            pool = candidates if len(candidates) else np.arange(shop.num_items)
            item[users] = rng.choice(pool, len(users))
        return item

    def _time(self, user: np.ndarray, hour: np.ndarray) -> np.ndarray:
        """Seconds since 1970 of users in an hour of today, each in a second of their own."""
        return START + self._day * DAY + hour * HOUR + (user * 7919 + self._day * 104_729) % HOUR

    def _remember(self, user: np.ndarray, item: np.ndarray, time: np.ndarray) -> None:
        for memory, new in ((self.history, item), (self.clicked_at, time)):
            memory[user] = np.concatenate([memory[user][:, 1:], new[:, None]], axis=1)


def exact_auc(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve by ranks; equal scores count half.

    Args:
        label: (B,) 0 or 1, both present.
        score: (B,) higher means more likely 1.
    """
    label = np.asarray(label) > 0
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    num_pos = int(label.sum())
    num_neg = len(label) - num_pos
    return float((rank[label].sum() - num_pos * (num_pos + 1) / 2) / (num_pos * num_neg))


def write_click_log(directory: Path, shop: Shop | None = None) -> ClickLog:
    """Writes ``train.parquet``, ``eval.parquet``, ``test.parquet`` and the titles' tokenizer.

    The parts follow each other in time: the model is tested on what happens later. Train rows
    are shuffled, as a log that is read in order would repeat its users in every batch.

    Args:
        directory: made if it is not there.
        shop: what to simulate; the default one makes 288,000 rows in a few seconds.

    Returns:
        Paths, sizes and the Bayes AUC.
    """
    shop = shop or Shop()
    directory.mkdir(parents=True, exist_ok=True)
    simulator = Simulator(shop)
    feed = Feed(simulator)
    feed.write_tokenizer(directory / TOKENIZER)
    paths, num_rows = {}, {}
    for split, num_rounds in zip(SPLITS, shop.num_rounds, strict=True):
        part = simulator.play(num_rounds)
        table = feed.add_columns(part.to_table(simulator.category), part)
        if split == "train":
            order = np.random.default_rng(shop.seed).permutation(table.num_rows)
            table = table.take(pa.array(order))
        paths[split] = directory / f"{split}.parquet"
        pq.write_table(table, paths[split], compression="zstd")
        num_rows[split] = table.num_rows
    return ClickLog(
        paths=paths,
        num_rows=num_rows,
        click_rate=float(part.label.mean()),
        bayes_auc=exact_auc(part.label, part.probability),
    )
