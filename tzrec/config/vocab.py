"""Vocabulary files: one word per line, or ``word id`` per line."""

from __future__ import annotations

import posixpath
import re

from tzrec.errors import ConfigError, MissingDependencyError
from tzrec.storage import open_file

_PAIR = re.compile(r"(\S*)\s+(\d+)\s*")


def vocab_path(asset_dir: str, name: str) -> str:
    """Returns where the file ``name`` of ``asset_dir`` is; either may be a URI."""
    return name if "://" in name else posixpath.join(asset_dir, name)


def read_vocab_file(path: str) -> dict[str, int]:
    """Reads a vocabulary.

    Args:
        path: local file or fsspec URI. Either each line is a word, and its id the number of the
            line from 0, or each line is a word, blanks and its id. A line that begins with blanks
            and has an id stands for the empty word.

    Returns:
        word → id.

    Raises:
        ConfigError: the file cannot be read, is empty, mixes the two forms, has a blank line in
            between, or gives a word two ids.
    """
    lines = _read(path).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise ConfigError(f"vocabulary {path} has no words")
    pairs = [_PAIR.fullmatch(line) for line in lines]
    has_ids = [pair is not None for pair in pairs]
    if len(set(has_ids)) > 1:
        number = has_ids.index(not has_ids[0])
        raise ConfigError(
            f"vocabulary {path}:{number + 1}: {lines[number]!r} is unlike the lines before it",
            hint="write either a word on every line, or a word, a blank and its id on every line",
        )
    ids: dict[str, int] = {}
    for number, (line, pair) in enumerate(zip(lines, pairs, strict=True)):
        word, word_id = (pair[1], int(pair[2])) if pair else (line.strip(), number)
        if not word and not pair:
            raise ConfigError(f"vocabulary {path}:{number + 1} is a blank line between words")
        if ids.setdefault(word, word_id) != word_id:
            raise ConfigError(
                f"vocabulary {path}:{number + 1}: {word!r} has the ids {ids[word]} and {word_id}",
                hint="keep the word once",
            )
    return ids


def _read(path: str) -> str:
    try:
        with open_file(path) as file:
            data: bytes = file.read()
        return data.decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"vocabulary {path} does not exist") from error
    except IsADirectoryError as error:
        raise ConfigError(f"vocabulary {path} is a folder") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"vocabulary {path} is not UTF-8 text (byte {error.start})") from error
    except MissingDependencyError as error:
        raise ConfigError(
            f"vocabulary {path} cannot be read: {error.message}", hint=error.hint
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"vocabulary {path} cannot be read: {error}") from error
