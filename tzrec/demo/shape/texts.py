"""Words that texts are made of."""

from __future__ import annotations

WORDS = (
    "red", "blue", "green", "black", "white", "grey", "lamp", "bulb", "shade", "boots", "laces",
    "socks", "novel", "atlas", "diary", "tent", "rope", "stove", "knife", "board", "pan",
    "guitar", "strings", "tuner", "bicycle", "helmet", "pump", "puzzle", "kite", "dice", "watch",
    "ring", "chain", "seeds", "spade", "pots", "old", "new", "small", "large", "warm", "light",
)  # fmt: skip
_MOST = 200
# How tokenizers mark that a token begins a word, or goes on with one.
_MARKS = "Ġ▁"


def words_of_tokenizer(path: str, kind: str) -> tuple[str, ...]:
    """Returns words that a tokenizer knows, `WORDS` where it knows none.

    Args:
        path: its file.
        kind: ``bpe`` or ``sentencepiece``.

    Raises:
        ConfigError: the file cannot be read.
    """
    from tzrec.fg.operators.tokenize_feature import load_tokenizer

    vocabulary = load_tokenizer(path, kind)[1]
    ordered = sorted(vocabulary, key=lambda token: vocabulary[token])
    words = [token.lstrip(_MARKS) for token in ordered]
    known = list(dict.fromkeys(word for word in words if len(word) > 1 and word.isalpha()))
    return tuple(known[:_MOST]) or WORDS
