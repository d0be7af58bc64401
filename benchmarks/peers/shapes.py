"""The data of the comparison: Parquet files of Criteo's and Taobao's shape, of any vocabulary.

Ids are Zipf distributed and labels come from a planted model, so that AUC means something. NumPy
and pyarrow only: every peer's environment reads and writes it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EXPONENT = 1.05
CHUNK = 100_000
LONGEST = 50
CRITEO_IDS, CRITEO_FLOATS, CRITEO_SMALLEST = 26, 13, 100

# Taobao's ad log. Tables below SCALED rows keep their size, whatever the vocabulary.
SCALED = 1_000
TAOBAO = {
    "user_id": 1_141_730, "cms_segid": 98, "cms_group_id": 13, "final_gender_code": 3,
    "age_level": 7, "pvalue_level": 4, "shopping_level": 4, "occupation": 3,
    "new_user_class_level": 5, "adgroup_id": 846_812, "cate_id": 12_978, "campaign_id": 423_437,
    "customer": 255_876, "brand": 461_498, "price": 100, "pid": 20,
}  # fmt: skip
# What an ad decides of a row, and what is kept of the ads that were clicked before.
OF_ADS = ("cate_id", "campaign_id", "customer", "brand", "price")
STEPS = ("adgroup_id", "cate_id", "brand")
SEQUENCE = "click_50_seq"


@dataclass(frozen=True)
class Shape:
    """The columns of a set.

    Attributes:
        name: ``criteo`` or ``taobao``.
        ids: column -> rows of its table. Taobao's ids start at 1: 0 is free for padding.
        floats: number columns.
        steps: sequence column -> the id column whose table it shares.
        labels: label columns.
    """

    name: str
    ids: dict[str, int]
    labels: tuple[str, ...]
    floats: tuple[str, ...] = ()
    steps: dict[str, str] = field(default_factory=dict)

    @property
    def vocabulary(self) -> int:
        """Rows of all tables."""
        return sum(self.ids.values())


def criteo(vocabulary: int) -> Shape:
    """Returns 13 numbers and 26 ids, their tables log-spaced from 100 rows on."""
    low, high = CRITEO_SMALLEST, vocabulary
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _sizes(middle).sum() > vocabulary else (middle, high)
    sizes = _sizes(low)
    return Shape(
        "criteo",
        {f"cat_{i}": int(size) for i, size in enumerate(sizes)},
        ("label",),
        tuple(f"int_{i}" for i in range(CRITEO_FLOATS)),
    )


def _sizes(largest: int) -> np.ndarray:
    return np.geomspace(CRITEO_SMALLEST, largest, CRITEO_IDS).round().astype(np.int64)


def taobao(vocabulary: int) -> Shape:
    """Returns 16 ids, three sequences of 1 to 50 steps and two labels."""
    fixed = sum(size for size in TAOBAO.values() if size < SCALED)
    scale = (vocabulary - fixed) / (sum(TAOBAO.values()) - fixed)
    ids = {n: size if size < SCALED else max(4, round(size * scale)) for n, size in TAOBAO.items()}
    return Shape("taobao", ids, ("clk", "buy"), steps={f"{SEQUENCE}__{n}": n for n in STEPS})


def make(directory: Path, shape: Shape, rows: int, *, seed: int = 0) -> Path:
    """Writes ``train.parquet``, ``test.parquet`` (a quarter of ``rows``) and ``shape.json``.

    Args:
        directory: where sets are kept.
        shape: what to make.
        rows: of the train part.
        seed: of all draws.

    Returns:
        The folder of the set; what is there already is kept.
    """
    folder = directory / f"{shape.name}-{shape.vocabulary}-{rows}"
    if (folder / "shape.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows_of = _criteo_rows(shape, rng) if shape.name == "criteo" else _taobao_rows(shape, rng)
    for part, count in (("train", rows), ("test", rows // 4)):
        writer = None
        for start in range(0, count, CHUNK):
            table = pa.table(rows_of(min(CHUNK, count - start)))
            writer = writer or pq.ParquetWriter(folder / f"{part}.parquet", table.schema)
            writer.write_table(table)
        writer.close()
    # Written last: its presence says that the set is whole.
    (folder / "shape.json").write_text(json.dumps(asdict(shape)))
    return folder


def load(folder: Path) -> Shape:
    """Returns the shape of a set."""
    facts = json.loads((folder / "shape.json").read_text())
    facts["labels"], facts["floats"] = tuple(facts["labels"]), tuple(facts["floats"])
    return Shape(**facts)


class Zipf:
    """Draws ids of ``first`` to ``size - 1``; the frequent ones lie anywhere in the table."""

    def __init__(self, size: int, rng: np.random.Generator, first: int = 0) -> None:
        weights = np.arange(1, size - first + 1) ** -EXPONENT
        self._cumulated = np.cumsum(weights) / weights.sum()
        self._order = rng.permutation(np.arange(first, size))
        self._rng = rng

    def __call__(self, count: int) -> np.ndarray:
        """Returns (count,) ids."""
        found = np.searchsorted(self._cumulated, self._rng.random(count))
        return self._order[np.minimum(found, len(self._order) - 1)]


def _criteo_rows(shape: Shape, rng: np.random.Generator):
    draws = {name: Zipf(size, rng) for name, size in shape.ids.items()}
    effects = {name: rng.normal(0, 0.5, size) for name, size in shape.ids.items()}
    slopes = rng.normal(0, 0.2, len(shape.floats))

    def rows(count: int) -> dict[str, np.ndarray]:
        floats = rng.exponential(1.0, (len(shape.floats), count)).astype(np.float32)
        ids = {name: draw(count) for name, draw in draws.items()}
        logit = slopes @ floats - 1.5 + sum(effects[name][ids[name]] for name in ids)
        label = {"label": _clicks(logit, rng)}
        return label | dict(zip(shape.floats, floats, strict=True)) | ids

    return rows


def _taobao_rows(shape: Shape, rng: np.random.Generator):
    draws = {name: Zipf(size, rng, first=1) for name, size in shape.ids.items()}
    of_ads = {name: draws[name](shape.ids["adgroup_id"]) for name in OF_ADS}
    effects = {name: rng.normal(0, 0.4, size) for name, size in shape.ids.items()}
    tastes = rng.normal(0, 1, (shape.ids["cate_id"], 4))

    def rows(count: int) -> dict[str, np.ndarray | pa.Array]:
        ids = {name: draw(count) for name, draw in draws.items() if name not in OF_ADS}
        ids |= {name: column[ids["adgroup_id"]] for name, column in of_ads.items()}
        lengths = rng.integers(1, LONGEST + 1, count)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        clicked = draws["adgroup_id"](int(offsets[-1]))
        steps = {"adgroup_id": clicked} | {n: of_ads[n][clicked] for n in STEPS if n in of_ads}
        interest = np.add.reduceat(tastes[steps["cate_id"]], offsets[:-1]) / lengths[:, None]
        match = (interest * tastes[ids["cate_id"]]).sum(axis=1)
        logit = match + sum(effects[name][ids[name]] for name in ids) - 1.5
        clk = _clicks(logit, rng)
        sequences = {c: pa.ListArray.from_arrays(offsets, steps[n]) for c, n in shape.steps.items()}
        return {"clk": clk, "buy": clk * _clicks(0.5 * logit - 1.0, rng)} | ids | sequences

    return rows


def _clicks(logit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.float32)


def read(path: Path, shape: Shape, *, sequences: bool = False) -> dict[str, np.ndarray]:
    """Returns a Parquet part as the in-memory arrays that research frameworks train on.

    Args:
        path: ``train.parquet`` or ``test.parquet``.
        shape: of the set.
        sequences: read the sequence columns too: padded with 0 to (rows, 50), and
            ``seq_length``.

    Returns:
        Column -> (rows,) numbers as float32, ids as int64.
    """
    names = [*shape.labels, *shape.floats, *shape.ids]
    table = pq.read_table(path, columns=[*names, *shape.steps] if sequences else names)
    arrays = {name: table.column(name).to_numpy() for name in names}
    for name in shape.steps if sequences else ():
        column = table.column(name).combine_chunks()
        offsets = column.offsets.to_numpy()
        lengths = np.diff(offsets)
        padded = np.zeros((len(lengths), LONGEST), np.int64)
        padded[np.arange(LONGEST) < lengths[:, None]] = column.flatten().to_numpy()
        arrays[name] = padded
        arrays["seq_length"] = lengths.astype(np.int64)
    return arrays
