"""The workloads of `fg` in polars, as far as it can compute the same.

Each function gets the columns and returns a call to be timed; frames are made before. Hashes are
those of polars, since it has none of ours.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pyarrow as pa

BUCKETS = 1_000_003
Columns = dict[str, pa.Array]
Call = Callable[[], object]


def frame_of(columns: Columns) -> pl.DataFrame:
    return pl.DataFrame(pa.table({name: entries(column) for name, column in columns.items()}))


def entries(column: pa.Array) -> pa.Array:
    """Maps as lists of pairs, which polars can take apart."""
    if not pa.types.is_map(column.type):
        return column
    pairs = pa.StructArray.from_arrays([column.keys, column.items], ["key", "value"])
    return pa.ListArray.from_arrays(column.offsets, pairs)


def hashed(expr: pl.Expr) -> pl.Expr:
    return expr.hash() % BUCKETS


def hashed_lists(expr: pl.Expr) -> pl.Expr:
    return expr.list.eval(pl.element().hash() % BUCKETS)


def log10(name: str) -> pl.Expr:
    column = pl.col(name)
    return pl.when(column > 0.05).then(column.log10()).otherwise(-5.0)


def select(expr: Callable[[str], pl.Expr]) -> Callable[[Columns], Call]:
    def prepare(columns: Columns) -> Call:
        frame = frame_of(columns)
        return lambda: frame.select([expr(name) for name in columns])

    return prepare


def cross(columns: Columns) -> Call:
    frame = frame_of(columns)

    def call() -> object:
        split = frame.select(pl.row_index(), *(pl.col(name).str.split("\x1d") for name in "ab"))
        pairs = split.explode("a").explode("b")
        return pairs.select("index", hashed(pl.concat_str(["a", "b"], separator="_")))

    return call


def lookup(frame: pl.DataFrame, table: str, key: str) -> object:
    own = frame.select(pl.row_index(), pl.col(table), pl.col(key).str.split("\x1d"))
    pairs = own.select("index", table).explode(table).unnest(table)
    wanted = own.select("index", key).explode(key)
    found = wanted.join(pairs, left_on=["index", key], right_on=["index", "key"])
    return found.group_by("index").agg(pl.col("value").sum())


def one_lookup(columns: Columns) -> Call:
    frame = frame_of(columns)
    return lambda: lookup(frame, "m", "k")


def mix(columns: Columns) -> Call:
    frame = frame_of(columns)
    by_letter: dict[str, Callable[[str], pl.Expr]] = {
        "s": lambda name: hashed(pl.col(name)),
        "i": lambda name: hashed(pl.col(name).cast(pl.String)),
        "m": lambda name: hashed_lists(pl.col(name).str.split("\x1d")),
        "q": lambda name: hashed_lists(pl.col(name)),
        "p": log10,
    }
    exprs = [by_letter[name[0]](name) for name in columns if name[0] in by_letter]
    for i in range(2):
        pair = pl.concat_str([f"s{i}", f"s{i + 2}"], separator="_")
        exprs.append(hashed(pair).alias(f"combo{i}"))
    exprs.append(((1 + pl.col("p0")).log() / (1 + pl.col("p1"))).alias("ratio"))
    return lambda: (frame.select(exprs), *(lookup(frame, f"k{i}", f"t{i}") for i in range(2)))


VERSIONS: dict[str, Callable[[Columns], Call]] = {
    "hash": select(lambda name: hashed(pl.col(name))),
    "hash_int": select(lambda name: hashed(pl.col(name).cast(pl.String))),
    "hash_list": select(lambda name: hashed_lists(pl.col(name))),
    "hash_joined": select(lambda name: hashed_lists(pl.col(name).str.split("\x1d"))),
    "hash_steps": select(lambda name: hashed_lists(pl.col(name).str.split(";"))),
    "log10": select(log10),
    "cross": cross,
    "lookup": one_lookup,
    "mix": mix,
}
