"""``match_feature``: values of a map of maps at a pair of keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tzrec.errors import ConfigError, did_you_mean
from tzrec.fg.align import sum_cells
from tzrec.fg.kernels import kernels
from tzrec.fg.maps import find, kept
from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged, Text
from tzrec.fg.reading import Reading, as_text, parse_numbers
from tzrec.fg.tail import Tail

_ALL = "ALL"
_MATCH_TYPES = ("hit", "multihit")
_BETWEEN_OUTER, _BEHIND_KEY, _BETWEEN_INNER, _BEHIND_SUBKEY = "|", "^", ord(","), ord(":")


class MatchOperator(Operator):
    """What ``pk^sk:v,sk:v|pk^sk:v`` has for a primary and a secondary key.

    A key written ``ALL`` stands for every key of its level (``matchType`` multihit). The map may
    be a map column primary key → ``sk:v,sk:v``. Text is ``[pkey_][skey_]value``, by
    ``show_category`` and ``show_item``; where it is hashed the feature's name stands before it
    (fg.md §10), but not before the default.
    """

    kind = "match_feature"

    def expressions(self) -> list[str]:
        """Returns the map and those keys that are not ``ALL``."""
        keys = [str(self.option(key)) for key in ("category", "item")]
        self._iterates = [key == _ALL for key in keys]
        if any(self._iterates) and self.spec.options.get("matchType") == "hit":
            raise ConfigError(
                f"match_feature {self.spec.name!r}: matchType hit takes inputs as keys, not ALL",
                hint="matchType multihit goes through all keys of a level",
            )
        return [str(self.option("user")), *(key for key in keys if key != _ALL)]

    def setup(self) -> None:
        """Reads what is returned."""
        options = self.spec.options
        how = options.get("matchType", "hit")
        if how not in _MATCH_TYPES:
            raise ConfigError(
                f"match_feature {self.spec.name!r}: matchType is {how!r}, must be one of "
                f"{', '.join(_MATCH_TYPES)}{did_you_mean(str(how), _MATCH_TYPES)}"
            )
        self._discrete = bool(options.get("needDiscrete"))
        if self._discrete and self.spec.value_type != "string":
            raise ConfigError(
                f"match_feature {self.spec.name!r} is discrete (needDiscrete), but its "
                f"value_type is {self.spec.value_type}; it must be string"
            )
        self.numeric = not self._discrete
        self._show = (bool(options.get("show_category")), bool(options.get("show_item")))
        if self.numeric:
            dim = 0 if any(self._iterates) else 1
            self.spec = dataclasses.replace(self.spec, value_dim=dim)

    def make_tail(self) -> Tail:
        """Hashes values behind the feature's name, the default without it."""
        named = self.spec.bucketizer == "hash_bucket_size"
        return Tail(
            self.spec,
            numeric=self.numeric,
            bucketize=self.bucketize(f"{self.spec.own_name}_" if named else ""),
            default_bucketize=self.bucketize(),
        )

    def reading(self, number: int) -> Reading:
        """Reads the outer map as one, keys as text."""
        return dataclasses.replace(
            super().reading(number),
            as_map=number == 0,
            as_numbers=False,
            pair_separator=_BEHIND_KEY,
            map_separator=_BETWEEN_OUTER,
        )

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the values that were found."""
        outer, *keys = columns
        pkey = None if self._iterates[0] else keys.pop(0)
        skey = None if self._iterates[1] else keys.pop(0)
        assert isinstance(outer.keys, Text)
        chosen, owners = _choose(outer, pkey)
        inner = _inner(chosen)
        if skey is None:
            found, of_chosen = inner, np.repeat(np.arange(inner.num_cells), inner.lengths)
        else:
            wanted = skey.take_cells(owners)
            assert isinstance(inner.keys, Text)
            positions = find(inner.keys, inner.lengths, wanted)
            of_chosen = np.repeat(np.arange(inner.num_cells), wanted.lengths)[positions >= 0]
            counts = kept(wanted, positions)
            found = inner.take_values(positions[positions >= 0], counts, None)
        lengths = np.bincount(owners[of_chosen], minlength=outer.num_cells).astype(np.int32)
        found = Ragged(found.values, lengths, outer.row_lengths, None, found.keys)
        if self._discrete:
            assert isinstance(chosen.keys, Text)
            return self._texts(found, chosen.keys.take(of_chosen))
        numbers = parse_numbers(found, "the map")
        if self.normalizer is not None:
            numbers = self.normalizer(numbers)
        return found.with_values(numbers)

    def _texts(self, found: Ragged, pkeys: Text) -> Ragged:
        assert isinstance(found.keys, Text)
        pieces = [pkeys] if self._show[0] else []
        pieces += [found.keys] if self._show[1] else []
        pieces.append(as_text(found.values))
        if len(pieces) == 1:
            return found.with_values(pieces[0])
        arrays = tuple((text.data, text.starts, text.ends) for text in pieces)
        return found.with_values(Text(*kernels().concat(arrays, np.frombuffer(b"_", np.uint8))))


def _choose(outer: Ragged, pkey: Ragged | None) -> tuple[Ragged, NDArray[np.int64]]:
    """Returns the outer entries that count, each a cell, and the cell that each comes from."""
    assert isinstance(outer.keys, Text)
    if pkey is None:
        positions = np.arange(len(outer.values))
        owners = np.repeat(np.arange(outer.num_cells), outer.lengths)
    else:
        found = find(outer.keys, outer.lengths, pkey)
        owners = np.repeat(np.arange(pkey.num_cells), pkey.lengths)[found >= 0]
        positions = found[found >= 0]
    ones = np.ones(len(positions), np.int32)
    return outer.take_values(positions, ones, None), owners


def _inner(chosen: Ragged) -> Ragged:
    """Takes ``sk:v,sk:v`` apart; cells are the outer entries."""
    texts = as_text(chosen.values)
    starts, ends, counts = kernels().split(
        texts.data, texts.starts, texts.ends, _BETWEEN_INNER, -1, False
    )
    key_ends, value_starts, _ = kernels().split_pairs(texts.data, starts, ends, _BEHIND_SUBKEY)
    lengths = sum_cells(counts, chosen.lengths)
    values = Text(texts.data, value_starts, ends)
    return Ragged(values, lengths, keys=Text(texts.data, starts, key_ends))
