"""Vocabulary files."""

import fsspec
import pytest

from tzrec.config.vocab import read_vocab_file, vocab_path
from tzrec.errors import ConfigError


def write(tmp_path, text):
    path = tmp_path / "vocab"
    path.write_bytes(text.encode())
    return str(path)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a\nb\nc\n", {"a": 0, "b": 1, "c": 2}),
        ("a\nb", {"a": 0, "b": 1}),
        ("a\r\nb\r\n\n", {"a": 0, "b": 1}),
        ("a 3\nb\t1\n", {"a": 3, "b": 1}),
        ("abc 2\nefg 2\n", {"abc": 2, "efg": 2}),
        ("  0\n<OOV> 1\nabc 2\n", {"": 0, "<OOV>": 1, "abc": 2}),
        ("new york\nrome\n", {"new york": 0, "rome": 1}),
        ("5\n7\n", {"5": 0, "7": 1}),
        ("东京\n", {"东京": 0}),
    ],
)
def test_forms(tmp_path, text, ids):
    assert read_vocab_file(write(tmp_path, text)) == ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no words"),
        ("\n \n", "has no words"),
        ("a 1\nb\n", ":2: 'b' is unlike the lines before"),
        ("a\n\nb\n", ":2 is a blank line"),
        ("a\nb\na\n", ":3: 'a' has the ids 0 and 2"),
        ("a 1\na 2\n", ":2: 'a' has the ids 1 and 2"),
    ],
)
def test_unusable(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_vocab_file(write(tmp_path, text))


def test_unreadable(tmp_path):
    with pytest.raises(ConfigError, match="none does not exist"):
        read_vocab_file(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="memory://none does not exist"):
        read_vocab_file("memory://none")
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"latin is not UTF-8 text \(byte 0\)"):
        read_vocab_file(str(tmp_path / "latin"))
    with pytest.raises(ConfigError, match="is a folder"):
        read_vocab_file(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_vocab_file("nosuchscheme://vocab")


def test_uri():
    with fsspec.open("memory://fg/words", "w") as file:
        file.write("a\nb\n")
    assert read_vocab_file("memory://fg/words") == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("asset_dir", "name", "path"),
    [
        ("", "words", "words"),
        ("assets", "words", "assets/words"),
        ("assets/", "words", "assets/words"),
        ("assets", "/abs/words", "/abs/words"),
        ("s3://bucket/x", "words", "s3://bucket/x/words"),
        ("assets", "s3://bucket/words", "s3://bucket/words"),
    ],
)
def test_vocab_path(asset_dir, name, path):
    assert vocab_path(asset_dir, name) == path
