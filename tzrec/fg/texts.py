"""Rare text functions run once per distinct text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.ragged import Text, ranges


def distinct(texts: Text) -> tuple[list[str], NDArray[np.int64]]:
    """Returns the distinct texts and the number of each text among them.

    Bytes that are no UTF-8 become U+FFFD.
    """
    encoded = texts.to_binary().dictionary_encode()
    words = [word.decode("utf-8", "replace") for word in encoded.dictionary.to_pylist()]
    return words, encoded.indices.to_numpy().astype(np.int64)


def map_texts(texts: Text, function: Callable[[list[str]], list[str]]) -> Text:
    """Returns the texts that ``function`` makes of them."""
    words, numbers = distinct(texts)
    return Text.of(function(words)).take(numbers)


def map_to_lists(
    texts: Text, function: Callable[[list[str]], list[list[int]]]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Returns the numbers that ``function`` makes of each text, flat, and how many."""
    words, numbers = distinct(texts)
    lists = function(words)
    sizes = np.array([len(found) for found in lists], dtype=np.int64)
    flat = np.array([value for found in lists for value in found], dtype=np.int64)
    lengths = sizes[numbers]
    positions = ranges((np.cumsum(sizes) - sizes)[numbers], lengths)
    return flat[positions], lengths.astype(np.int32)
