"""Values → ids: the options of ``fg.json`` that make a feature sparse (fg.md §6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tzrec.config.vocab import read_vocab_file
from tzrec.errors import FeatureError
from tzrec.fg import checks
from tzrec.fg.kernels import kernels
from tzrec.fg.ragged import Ragged, Text, Values, as_float32
from tzrec.fg.reading import as_text
from tzrec.fg.spec import FeatureSpec

Ids = NDArray[np.int64]


class Bucketize:
    """Makes ids of values.

    ====================  ================================================================
    hash_bucket_size N    hash of the text, unsigned, mod N
    num_buckets N         the whole number itself; outside 0 … N-1 it is 0
    vocab_list/dict/file  id of the word, else ``default_bucketize_value`` (1)
    boundaries b          number of b ≤ x, compared in float32; nan falls behind all
    ====================  ================================================================

    Args:
        spec: the feature.
        prefix: text that is put before each value that is hashed.
        farm: hash with FarmHash Fingerprint64 instead of MurmurHash64A.

    Raises:
        ConfigError: a vocabulary cannot be read.
    """

    def __init__(self, spec: FeatureSpec, *, prefix: str = "", farm: bool = False) -> None:
        kind = spec.bucketizer
        if kind is None:
            raise ValueError(f"{spec.name} has no bucketizer")
        self.kind = kind
        self._farm = farm
        self._prefix = np.frombuffer(prefix.encode(), np.uint8)
        value = spec.options[kind]
        if kind in ("hash_bucket_size", "num_buckets"):
            self.buckets = checks.whole(kind, value, least=1)
        elif kind == "boundaries":
            self._boundaries = as_float32(np.array(checks.rising(kind, value)))
        else:
            key = "default_bucketize_value"
            self._oov = checks.whole(key, spec.options.get(key, 1))
            self._table = _vocabulary(_words(kind, value))

    @property
    def prefix(self) -> str:
        """Text that is put before each value that is hashed."""
        return self._prefix.tobytes().decode() if self.kind == "hash_bucket_size" else ""

    @property
    def joins_products(self) -> bool:
        """True where Cartesian products can be hashed without writing their text."""
        return self.kind == "hash_bucket_size" and not len(self._prefix)

    def ids(self, cells: Ragged) -> Ids:
        """Returns an id for each value.

        Raises:
            FeatureError: a value is no number where one is needed; names its row.
        """
        values = cells.values
        if self.kind == "hash_bucket_size":
            return self._hash(values)
        if self.kind == "boundaries":
            return kernels().bucket_boundaries(as_float32(self._numbers(cells)), self._boundaries)
        if self.kind == "num_buckets":
            return self._whole_numbers(cells)
        texts = as_text(values)
        return kernels().lookup_vocabulary(
            self._table, texts.data, texts.starts, texts.ends, self._oov
        )

    def unknown(self, cells: Ragged) -> int:
        """Returns how many values have no id of their own; 0 for hashes and boundaries."""
        if self.kind == "num_buckets":
            numbers = cells.values
            if isinstance(numbers, Text):
                numbers, status = kernels().parse_ints(numbers.data, numbers.starts, numbers.ends)
                numbers = np.where(status == 0, numbers, -1)
            with np.errstate(invalid="ignore"):
                inside = (np.trunc(numbers) >= 0) & (numbers < self.buckets)
            return len(numbers) - int(np.count_nonzero(inside))
        if self.kind in ("hash_bucket_size", "boundaries"):
            return 0
        texts = as_text(cells.values)
        ids = kernels().lookup_vocabulary(self._table, texts.data, texts.starts, texts.ends, -1)
        return int(np.count_nonzero(ids < 0))

    def cross(self, parts: list[Ragged]) -> Ragged:
        """Returns the hashed ids of the products of ``parts``; see `joins_products`."""
        texts = [(as_text(part.values), part.lengths) for part in parts]
        arrays = tuple((t.data, t.starts, t.ends, lengths) for t, lengths in texts)
        ids, lengths = kernels().bucket_cross(arrays, np.uint64(self.buckets), self._farm)
        return Ragged(ids, lengths, parts[0].row_lengths)

    def hash_parts(self, values: Values, bounds: Ids, buckets: Sequence[int]) -> Ids:
        """Returns the hashed ids of parts that belong to makers of several sizes.

        Args:
            values: of all parts; no prefix is put before them.
            bounds: (parts + 1,) where each part begins and ends.
            buckets: of each part.
        """
        text = as_text(values)
        sizes = np.array(buckets, np.uint64)
        return kernels().bucket_parts(text.data, text.starts, text.ends, bounds, sizes, self._farm)

    def _hash(self, values: Values) -> Ids:
        buckets = np.uint64(self.buckets)
        if not isinstance(values, Text) and values.dtype == np.int64 and not len(self._prefix):
            return kernels().bucket_ints(np.ascontiguousarray(values), buckets, self._farm)
        text = as_text(values)
        parts = (text.data, text.starts, text.ends, buckets, self._farm)
        if len(self._prefix):
            return kernels().bucket_prefixed(self._prefix, *parts)
        return kernels().bucket_text(*parts)

    def _numbers(self, cells: Ragged) -> NDArray[Any]:
        from tzrec.fg.reading import parse_numbers

        return parse_numbers(cells, "the column") if cells.is_text else cells.values

    def _whole_numbers(self, cells: Ragged) -> Ids:
        values = cells.values
        if isinstance(values, Text):
            numbers, status = kernels().parse_ints(values.data, values.starts, values.ends)
            if (status == 1).any():
                position = int(np.argmax(status == 1))
                raise FeatureError(
                    f"row {cells.row_of(position)} of the batch holds "
                    f"{values.show(position)!r}, which is not a whole number",
                    hint="num_buckets takes ids; hash_bucket_size takes any text",
                )
        else:
            outside = ~np.isfinite(values) | (np.abs(values) >= 2**62)
            numbers = np.where(outside, -1, values).astype(np.int64)
            status = np.zeros(len(numbers), np.uint8)
        return kernels().bucket_number(numbers, status, np.int64(self.buckets))


class NumberOf:
    """Words → numbers.

    Args:
        words: word → number.
    """

    def __init__(self, words: Mapping[str, float]) -> None:
        self._numbers = np.array([*words.values(), np.nan])
        self._table = _vocabulary({word: index for index, word in enumerate(words)})

    def of(self, texts: Text) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Returns the number of each text, and whether there is one."""
        ids = kernels().lookup_vocabulary(self._table, texts.data, texts.starts, texts.ends, -1)
        return self._numbers[ids], ids >= 0


def _words(kind: str, value: Any) -> Mapping[str, int]:
    if kind == "vocab_list":
        return {word: index for index, word in enumerate(checks.texts(kind, value))}
    if kind == "vocab_dict":
        ids = checks.mapping(kind, value)
        return {word: checks.whole(f"{kind}[{word!r}]", index) for word, index in ids.items()}
    return read_vocab_file(str(value))


def _vocabulary(words: Mapping[str, int]) -> Any:
    text = Text.of(list(words))
    ids = np.array(list(words.values()), dtype=np.int64)
    return kernels().build_vocabulary(text.data, text.starts, text.ends, ids)
