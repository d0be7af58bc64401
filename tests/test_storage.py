"""`tzrec.storage` on the local disk and on fsspec's ``memory://``."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tzrec import storage
from tzrec.errors import MissingDependencyError


@pytest.fixture
def root() -> str:
    return f"memory://{uuid.uuid4().hex}"


def test_remote_means_another_scheme_than_file(tmp_path: Path) -> None:
    assert storage.is_remote("memory://a")
    assert storage.is_remote("s3://a/b")
    assert not any(map(storage.is_remote, [tmp_path, str(tmp_path), "a/b", "file:///a"]))


def test_a_tree_goes_there_and_back(tmp_path: Path, root: str) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x").write_bytes(b"x")
    (tmp_path / "y").write_bytes(b"\0y")
    storage.upload_tree(tmp_path, f"{root}/run", last=["y"])
    assert storage.exists(f"{root}/run/a/b/x")
    assert storage.list_directory(f"{root}/run") == ["a", "y"]
    storage.download_tree(f"{root}/run", tmp_path / "back")
    assert (tmp_path / "back/a/b/x").read_bytes() == b"x"
    assert (tmp_path / "back/y").read_bytes() == b"\0y"
    storage.remove_tree(f"{root}/run")
    assert storage.list_directory(f"{root}/run") == []
    storage.remove_tree(f"{root}/run")


class _Slow(MemoryFileSystem):
    """An object store: answers several requests at a time, each with a part of a file."""

    async_impl = True
    together = threading.Barrier(3)

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        self.together.wait(20)  # three are on their way at once, or this fails
        return bytes(super().cat_file(path, start=start, end=end))


def test_pieces_of_files_come_at_a_time(
    tmp_path: Path, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"a/large": bytes(range(250)) * 10, "small": b"s", "empty": b""}
    for name, value in content.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(value)
    storage.upload_tree(tmp_path / "in", f"{root}/run")
    monkeypatch.setattr(storage, "_PIECE_BYTES", 500)
    slow = _Slow()
    monkeypatch.setattr(storage, "file_system", lambda path: (slow, path.partition("://")[2]))
    assert storage.file_sizes(f"{root}/run") == {k: len(v) for k, v in content.items()}
    storage.download_tree(f"{root}/run", tmp_path / "out")  # five pieces and one
    for name, value in content.items():
        assert (tmp_path / "out" / name).read_bytes() == value


def test_a_piece_that_fails_ends_the_download(tmp_path: Path, root: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.download_files(root, tmp_path, {"nothing": 3})


def test_a_server_that_gives_no_parts_is_noticed(
    tmp_path: Path, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Whole(MemoryFileSystem):
        async_impl = True

        def cat_file(self, path: str, start: int, end: int) -> bytes:
            return bytes(super().cat_file(path))

    (tmp_path / "in").mkdir()
    (tmp_path / "in/x").write_bytes(b"0123456789")
    storage.upload_tree(tmp_path / "in", f"{root}/run")
    monkeypatch.setattr(storage, "_PIECE_BYTES", 4)
    monkeypatch.setattr(storage, "file_system", lambda path: (Whole(), path.partition("://")[2]))
    with pytest.raises(OSError, match="got 10 bytes"):
        storage.download_tree(f"{root}/run", tmp_path / "out")


def test_pieces_of_s3(tmp_path: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in/b").mkdir(parents=True)
    (tmp_path / "in/a").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "in/b/c").write_bytes(b"")
    storage.upload_tree(tmp_path / "in", f"{s3_url}/run")
    monkeypatch.setattr(storage, "_PIECE_BYTES", 1000)
    storage.download_tree(f"{s3_url}/run", tmp_path / "out")
    assert (tmp_path / "out/a").read_bytes() == bytes(range(256)) * 9
    assert (tmp_path / "out/b/c").read_bytes() == b""
    with pytest.raises(FileNotFoundError):
        storage.download_files(f"{s3_url}/run", tmp_path / "no", {"nothing": 3})


def test_local_files_need_no_scheme(tmp_path: Path) -> None:
    with storage.open_file(tmp_path / "x", "w", encoding="utf-8") as stream:
        stream.write("é")
    assert (tmp_path / "x").read_text(encoding="utf-8") == "é"
    assert storage.exists(tmp_path / "x")
    assert not storage.is_directory(tmp_path / "x")
    assert storage.list_directory(tmp_path) == ["x"]


def test_an_unknown_scheme_says_what_to_install() -> None:
    with pytest.raises(MissingDependencyError, match="nosuch"):
        storage.exists("nosuch://bucket/x")
