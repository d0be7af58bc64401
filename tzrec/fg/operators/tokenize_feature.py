"""``tokenize_feature``: texts → ids of a tokenizer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tzrec.errors import ConfigError, MissingDependencyError, did_you_mean
from tzrec.fg.align import sum_cells
from tzrec.fg.bucketize import Bucketize
from tzrec.fg.operators.base import Operator
from tzrec.fg.ragged import Ragged, Text
from tzrec.fg.reading import Reading, as_text
from tzrec.fg.tail import Tail
from tzrec.fg.texts import map_to_lists

Encode = Callable[[list[str]], list[list[int]]]


class TokenizeOperator(Operator):
    """Ids of the tokens of a text, without special tokens.

    ``tokenizer_type`` is ``bpe`` (a ``tokenizer.json`` of Hugging Face) or ``sentencepiece`` (a
    ``.model`` file). The default is a text like any other and is tokenised too.
    """

    kind = "tokenize_feature"
    num_inputs = 1
    truncates = False

    def setup(self) -> None:
        """Loads the tokenizer."""
        output = str(self.spec.options.get("output_type") or "word_id")
        if output != "word_id":
            raise ConfigError(f"output_type is {output!r}, must be word_id")
        kind = str(self.spec.options.get("tokenizer_type") or "bpe")
        path = str(self.option("vocab_file"))
        self._encode, _ = load_tokenizer(path, kind)
        self._num_ids = vocabulary_size(path, kind)

    def make_tail(self) -> Tail:
        """Returns a tail that fills in the tokens of the default."""
        return self._tail(None)

    def generated_tail(self) -> Tail:
        """Returns the same for columns that hold tokens: whole numbers, one outside becomes 0."""
        options = {**self.spec.options, "num_buckets": self._num_ids}
        return self._tail(Bucketize(dataclasses.replace(self.spec, options=options)))

    def _tail(self, bucketize: Bucketize | None) -> Tail:
        text = self.spec.default or ("0" if self.spec.is_sequence else "")
        tokens = self._encode([text])[0] if text else []
        default = np.array(tokens, dtype=np.int64)
        return Tail(
            self.spec, numeric=False, bucketize=bucketize, truncates=False, default_values=default
        )

    def reading(self, number: int) -> Reading:
        """Reads a cell as one text."""
        return dataclasses.replace(super().reading(number), separator="", as_numbers=False)

    def run(self, columns: Sequence[Ragged]) -> Ragged:
        """Returns the tokens of each cell."""
        (column,) = columns
        texts: Text = as_text(column.values)
        ids, counts = map_to_lists(texts, self._encode)
        return Ragged(ids, sum_cells(counts, column.lengths), column.row_lengths)


@functools.lru_cache(maxsize=8)
def load_tokenizer(path: str, kind: str) -> tuple[Encode, dict[str, int]]:
    """Returns the function of a tokenizer, and its vocabulary (token → id), added tokens included.

    Raises:
        ConfigError: the kind is unknown, or the file cannot be read.
        MissingDependencyError: the package that reads it is not installed.
    """
    if kind not in _LOADERS:
        raise ConfigError(
            f"tokenizer_type is {kind!r}, must be one of {', '.join(_LOADERS)}"
            f"{did_you_mean(kind, _LOADERS)}"
        )
    return _LOADERS[kind](path)


def vocabulary_size(path: str, kind: str) -> int:
    """Returns a number that all ids of a tokenizer are below; errors as `load_tokenizer`."""
    words = load_tokenizer(path, kind)[1]
    # A file may leave out ids.
    return max(len(words), 1 + max(words.values(), default=0))


def _load_bpe(path: str) -> tuple[Encode, dict[str, int]]:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise _missing("tokenizers") from error
    tokenizer: Any = _load(path, Tokenizer.from_file)

    def encode(texts: list[str]) -> list[list[int]]:
        # One by one: padding of the file must not depend on what else is in the batch.
        return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]

    return encode, dict(tokenizer.get_vocab(with_added_tokens=True))


def _load_sentencepiece(path: str) -> tuple[Encode, dict[str, int]]:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise _missing("sentencepiece") from error
    processor: Any = _load(path, lambda name: SentencePieceProcessor(model_file=name))
    words = {processor.id_to_piece(i): i for i in range(int(processor.vocab_size()))}
    return processor.encode, words


def _load(path: str, loader: Callable[[str], Any]) -> Any:
    try:
        return loader(path)
    except Exception as error:  # the libraries raise bare exceptions of their own
        raise ConfigError(f"tokenizer file {path} cannot be read: {error}") from error


def _missing(package: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"tokenize_feature needs the package {package}", hint=f"pip install {package}"
    )


_LOADERS: dict[str, Callable[[str], tuple[Encode, dict[str, int]]]] = {
    "bpe": _load_bpe,
    "sentencepiece": _load_sentencepiece,
}
