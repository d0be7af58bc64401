"""Input tiling: the features of a user arrive once, those of its candidates row by row.

An artefact exported with ``input_tile`` 2 or 3 has the parse keys of an untiled one and
`BATCH_SIZE` beside them. Features of the user (`user_features`) have U rows, all others B::

    batch_size ()    every user has as many candidates, U * batch_size = B
    batch_size (U,)  user u has batch_size[u] >= 1 candidates, their sum is B; rows of one user
                     stand together, users in order

So one request is U = 1 and batch_size = B (`DataParser.parse_request`); a table, whose rows have a
user each, is U = B and batch_size = 1 (`own_users`); several users are scored at once with (U,).

Mode 2 repeats the ids of users before the lookup, mode 3 looks them up once and repeats the
vectors. Scores are those of the untiled model on repeated rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tzrec.batch import UserRows
from tzrec.config.feature_facts import FeatureFacts
from tzrec.errors import ConfigError
from tzrec.ops import tiling

if TYPE_CHECKING:
    from tzrec.features.feature import BaseFeature

BATCH_SIZE = "batch_size"
BEFORE_LOOKUP, AFTER_LOOKUP = 2, 3
# 0 = no tiling.
TILE_MODES = (0, BEFORE_LOOKUP, AFTER_LOOKUP)
PARTS = ("values", "lengths", "weights", "key_lengths")


def check_input_tile(mode: int) -> int:
    """Returns the mode.

    Raises:
        ConfigError: there is no such mode.
    """
    if mode not in TILE_MODES:
        raise ConfigError(
            f"input_tile is {mode!r}, must be 0 (off), 2 (users' ids are repeated) or 3 (their "
            "vectors are)"
        )
    return mode


def user_features(features: Sequence[BaseFeature]) -> frozenset[str]:
    """Returns the names of the features that arrive once a user.

    These are the features whose inputs are all on the side ``user`` or are other such features
    (FG_DAG), and all features of a grouped sequence, unless its ``sequence_pk`` is not the
    user's. Stubs, which no model reads, are left out.

    Args:
        features: all of a config.
    """
    by_name = {feature.name: feature for feature in features}
    known: dict[str, bool] = {}

    def of_user(name: str) -> bool:
        if name not in known:
            known[name] = False  # while features read each other in a circle
            known[name] = name in by_name and _is_of_user(by_name[name], of_user)
        return known[name]

    return frozenset(f.name for f in features if not f.is_stub and of_user(f.name))


def _is_of_user(feature: BaseFeature, of_user: Callable[[str], bool]) -> bool:
    if feature.is_grouped_sequence:
        return str(feature.sequence_pk).partition(":")[0].strip() == "user"
    inputs = [
        text.partition(":") for _, text in FeatureFacts("", feature.kind, feature.config).inputs
    ]
    sides = [(side.strip(), name.strip()) for side, _, name in inputs if side.strip() != "const"]
    return bool(sides) and all(
        side == "user" or (side == "feature" and of_user(name)) for side, name in sides
    )


def own_users(parsed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns untiled parse keys as input of a tiled model: every row has a user of its own."""
    return {**parsed, BATCH_SIZE: torch.tensor(1, dtype=torch.int64)}


def one_user(
    parsed: Mapping[str, Tensor], users: Collection[str], row: int = 0
) -> dict[str, Tensor]:
    """Returns untiled parse keys as one request: the user of ``row`` with all rows' candidates.

    Args:
        parsed: of B rows.
        users: names of the features of the user.
        row: whose they are.
    """
    names = feature_names(parsed)
    num_rows = _first(parsed, names[0]).size(0) if names else 0
    tiled = dict(parsed)
    for name in names:
        if name in users:
            tiled |= take(parsed, name, torch.tensor([row]))
    return {**tiled, BATCH_SIZE: torch.tensor(num_rows, dtype=torch.int64)}


def untiled(parsed: Mapping[str, Tensor], users: Collection[str]) -> dict[str, Tensor]:
    """Returns what an untiled model reads for tiled parse keys: rows of users are repeated.

    Args:
        parsed: with `BATCH_SIZE`.
        users: names of the features of the user.
    """
    plain = {key: value for key, value in parsed.items() if key != BATCH_SIZE}
    names = [name for name in feature_names(plain) if name in users]
    if names:
        rows = tiling.owners(_counts(parsed, names))
        for name in names:
            plain |= take(parsed, name, rows)
    return plain


def take(parsed: Mapping[str, Tensor], name: str, rows: Tensor) -> dict[str, Tensor]:
    """Returns the parse keys of a feature for the rows numbered ``rows`` (M,)."""
    found = {part: parsed[f"{name}.{part}"] for part in PARTS if f"{name}.{part}" in parsed}
    lengths = found.get("lengths")
    if lengths is None:
        return {f"{name}.values": found["values"].index_select(0, rows)}
    found["lengths"] = lengths.index_select(0, rows)
    if "key_lengths" in found:
        # The steps of the rows first, then the ids of these steps.
        steps = torch.arange(found["key_lengths"].size(0))
        rows, _ = tiling.repeat_jagged(steps, lengths, rows)
        lengths = found["key_lengths"]
        found["key_lengths"] = lengths.index_select(0, rows)
    for part in ("values", "weights"):
        if part in found:
            found[part], _ = tiling.repeat_jagged(found[part], lengths, rows)
    return {f"{name}.{part}": value for part, value in found.items()}


def feature_names(parsed: Mapping[str, Tensor]) -> list[str]:
    """Returns the names of the features (and list labels) that parse keys are of."""
    return [key.removesuffix(".values") for key in parsed if key.endswith(".values")]


def _first(parsed: Mapping[str, Tensor], name: str) -> Tensor:
    """Returns a tensor that has one row for each row of a feature."""
    lengths = parsed.get(f"{name}.lengths")
    return parsed[f"{name}.values"] if lengths is None else lengths


def _counts(parsed: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    size = parsed[BATCH_SIZE]
    return tiling.counts_of(size, _first(parsed, names[0])) if names else size.reshape(-1)


class Tiling:
    """Makes features of users as long as the others; traceable.

    Args:
        parsed: parse keys with `BATCH_SIZE`.
        features: all of the model.
        users: names of those of the user, at least one.
        mode: with `BEFORE_LOOKUP` rows of ids are repeated; with `AFTER_LOOKUP` the first U rows
            are the users' and all others are empty. Dense values are always repeated.

    Attributes:
        rows: which user each row belongs to.
    """

    def __init__(
        self,
        parsed: Mapping[str, Tensor],
        features: Sequence[BaseFeature],
        users: frozenset[str],
        mode: int,
    ) -> None:
        # A tensor of U rows, and one of B rows.
        of_user, of_rows = (
            next((f for f in features if (f.name in users) is side), None) for side in (True, False)
        )
        assert of_user is not None
        counts = tiling.counts_of(parsed[BATCH_SIZE], parsed[_rows_key(of_user)])
        rows = None if of_rows is None else parsed[_rows_key(of_rows)]
        self.rows = UserRows(users, counts=counts, owners=tiling.owners(counts, rows))
        self._mode = mode

    def dense(self, values: Tensor) -> Tensor:
        """Returns (B, D) of (U, D)."""
        return values.index_select(0, self.rows.owners)

    def jagged(
        self, values: Sequence[Tensor], lengths: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Returns values and lengths (B,) of features.

        Args:
            values: of each feature (sum of lengths, ...).
            lengths: of each feature (U,).
        """
        owners = self.rows.owners
        if self._mode == AFTER_LOOKUP:
            filled = tiling.fill_up(torch.stack(list(lengths)), owners).unbind(0)
            return list(values), [filled[i] for i in range(len(lengths))]
        pairs = zip(values, lengths, strict=True)
        repeated = [tiling.repeat_jagged(one, length, owners) for one, length in pairs]
        return [one[0] for one in repeated], [one[1] for one in repeated]


def parts_of(feature: BaseFeature) -> list[str]:
    """Returns the parts that a feature has among the parse keys."""
    parts = ["values"]
    if feature.is_sparse or feature.is_sequence:
        parts.append("lengths")
    if feature.is_sparse and feature.is_weighted:
        parts.append("weights")
    if has_key_lengths(feature):
        parts.append("key_lengths")
    return parts


def num_rows_of(parsed: Mapping[str, Tensor], feature: BaseFeature) -> int:
    """Returns the rows of a feature."""
    return parsed[_rows_key(feature)].size(0)


def _rows_key(feature: BaseFeature) -> str:
    part = "lengths" if feature.is_sparse or feature.is_sequence else "values"
    return f"{feature.name}.{part}"


def has_key_lengths(feature: BaseFeature) -> bool:
    """Returns whether a feature has several ids a step."""
    return feature.is_sparse and feature.is_sequence and feature.value_dim != 1
