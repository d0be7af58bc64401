"""`tzrec.storage` on the local disk and on fsspec's ``memory://``."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

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
