"""MovieLens-1M as a ranking task: will the user rate this movie 4 or better?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tzrec.errors import DataError
from tzrec.tools.convert.columns import Converted, Feature, History, Id, read_columns

FILES = ("ratings.parquet", "users.dat", "movies.dat")

HISTORY_LENGTH = 50
_LIKED = 4

MODEL = """
train_config {
  sparse_optimizer {
    adagrad_optimizer { lr: 0.02 }
    constant_learning_rate {}
  }
  dense_optimizer {
    adam_optimizer { lr: 0.001 }
    constant_learning_rate {}
  }
  num_epochs: 1
}
data_config {
  batch_size: 2048
  dataset_type: ParquetDataset
  fg_mode: FG_NONE
  label_fields: "label"
  num_workers: 1
  shuffle: true
}
model_config {
  feature_groups {
    group_name: "user"
    feature_names: ["user_id", "gender", "age", "occupation"]
    group_type: DEEP
  }
  feature_groups {
    group_name: "item"
    feature_names: ["movie_id", "genres"]
    group_type: DEEP
  }
  feature_groups {
    group_name: "history"
    feature_names: ["movie_id", "history__movie_id"]
    group_type: SEQUENCE
  }
  multi_tower_din {
    towers { input: "user" mlp { hidden_units: [128, 64] } }
    towers { input: "item" mlp { hidden_units: [128, 64] } }
    din_towers { input: "history" attn_mlp { hidden_units: [64, 16] } }
    final { hidden_units: [64] }
  }
  losses { binary_cross_entropy {} }
  metrics { auc {} }
}
"""


def convert(source: Path) -> Converted:
    """Makes a row of each rating whose place in its user's time order is known.

    The history of a row is what the user rated before, the newest `HISTORY_LENGTH` movies,
    oldest first. The last row of a user is for the test, the last but one for validation.

    Args:
        source: directory with `FILES`.

    Raises:
        DataError: a file or column is missing, or a user or movie is unknown.
    """
    ratings = read_columns(source / FILES[0], ["user_id", "movie_id", "rating", "pos"])
    user, movie, rating, pos = (ratings[name].to_numpy() for name in ratings.column_names)
    known = pos >= 0
    order = np.lexsort((pos[known], user[known]))
    user, movie, rating = user[known][order], movie[known][order], rating[known][order]
    from_end = _places_from_end(user)
    columns, features = _user_columns(source / FILES[1], user)
    more_columns, more_features = _movie_columns(source / FILES[2], movie)
    history = _histories(user, movie)
    table = pa.table(
        {
            "label": (rating >= _LIKED).astype(np.float32),
            "rating": rating.astype(np.float32),
            **columns,
            **more_columns,
            "history__movie_id": history,
        }
    )
    parts = {
        "train": table.filter(from_end >= 2),
        "valid": table.filter(from_end == 1),
        "test": table.filter(from_end == 0),
    }
    num_movies = int(movie.max()) + 1
    step = Id("movie_id", "item", num_movies, table="movie_emb")
    steps = History("history", HISTORY_LENGTH, (step,))
    return Converted(parts, (*features, *more_features, steps), ("label", "rating"), MODEL)


def _places_from_end(user: np.ndarray) -> np.ndarray:
    """(B,) how many rows of the same user follow; ``user`` is sorted."""
    _, counts = np.unique(user, return_counts=True)
    ends = np.repeat(np.cumsum(counts), counts)
    return ends - 1 - np.arange(len(user))


def _histories(user: np.ndarray, movie: np.ndarray) -> pa.ListArray:
    """Lists of the movies in the rows before, of the same user; ``user`` is sorted."""
    _, first, counts = np.unique(user, return_index=True, return_counts=True)
    row = np.arange(len(user))
    start = np.maximum(np.repeat(first, counts), row - HISTORY_LENGTH)
    lengths = row - start
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    values = movie[np.repeat(start, lengths) + within]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


def _user_columns(path: Path, user: np.ndarray) -> tuple[dict[str, pa.Array], list[Feature]]:
    """Columns of ``user::gender::age::occupation::zip`` for the rows, and their features."""
    lines = _read_lines(path, num_fields=5)
    index = {int(line[0]): place for place, line in enumerate(lines)}
    place = _look_up(index, user, path)
    columns = {"user_id": pa.array(user)}
    features: list[Feature] = [Id("user_id", "user", max(index) + 1)]
    for field, name in ((1, "gender"), (2, "age"), (3, "occupation")):
        words = sorted({line[field] for line in lines}, key=lambda word: (len(word), word))
        ids = np.array([words.index(line[field]) for line in lines])
        columns[name] = pa.array(ids[place])
        features.append(Id(name, "user", len(words)))
    return columns, features


def _movie_columns(path: Path, movie: np.ndarray) -> tuple[dict[str, pa.Array], list[Feature]]:
    """Columns of ``movie::title::genre|genre`` for the rows, and their features."""
    lines = _read_lines(path, num_fields=3)
    index = {int(line[0]): place for place, line in enumerate(lines)}
    place = _look_up(index, movie, path)
    genres = sorted({genre for line in lines for genre in line[2].split("|")})
    number = {genre: i for i, genre in enumerate(genres)}
    of_movie = pa.array([[number[genre] for genre in line[2].split("|")] for line in lines])
    columns = {"movie_id": pa.array(movie), "genres": of_movie.take(pa.array(place))}
    features: list[Feature] = [
        Id("movie_id", "item", int(movie.max()) + 1, table="movie_emb"),
        Id("genres", "item", len(genres), pooling="mean"),
    ]
    return columns, features


def _look_up(index: dict[int, int], ids: np.ndarray, path: Path) -> np.ndarray:
    """(B,) line of each id in ``path``."""
    present = np.unique(ids)
    unknown = [int(i) for i in present if int(i) not in index]
    if unknown:
        raise DataError(f"{path}: has no line for {unknown[:5]}, which {FILES[0]} rates by or on")
    lines = np.array([index[int(i)] for i in present])
    return lines[np.searchsorted(present, ids)]


def _read_lines(path: Path, num_fields: int) -> list[list[str]]:
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    lines = [line.split("::") for line in text.splitlines() if line]
    for number, line in enumerate(lines, start=1):
        if len(line) != num_fields or not line[0].isdigit():
            raise DataError(f"{path}:{number}: is not an id and {num_fields - 1} more fields")
    return lines
