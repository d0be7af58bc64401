"""Odd vectors, ids and files: refused with a clear error, or by a documented rule."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from tzrec.errors import DataError, ServingError
from tzrec.retrieval import (
    Index,
    IndexOptions,
    Retriever,
    RowLists,
    build_index,
    evaluate_candidates,
    evaluate_ranking,
    towers,
)
from tzrec.retrieval.ids import plain_ids
from tzrec.retrieval.vectors import to_vectors


def vectors(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def retriever():
    return Retriever(build_index(pa.array([1, 2, 12, 30]), np.eye(4, dtype=np.float32)))


class TestExclude:
    """The user's vector prefers items in the order 12, 2, 30, 1."""

    users = np.array([[1.0, 3, 4, 2]] * 3, np.float32)

    @pytest.mark.parametrize(
        "exclude",
        [
            ["12", "2;30", None],
            [[12], [2, 30], None],
            [(12,), {30, 2}, []],
            pa.array(["12", "2,30", ""]),
        ],
        ids=str,
    )
    def test_lists_and_text(self, retriever, exclude):
        found = retriever.retrieve_vectors(self.users, 4, exclude=exclude)
        assert found.ids == [[2, 30, 1], [12, 1], [12, 2, 30, 1]]

    @pytest.mark.parametrize("exclude", [[12, 2, 30], [[12], "2;30", []], [[12], ["x"], []]])
    def test_mistakes(self, retriever, exclude):
        with pytest.raises(DataError, match=r"exclude|integer ids"):
            retriever.retrieve_vectors(self.users, 4, exclude=exclude)


class TestNotFinite:
    def test_items(self):
        items = vectors(5, 3)
        items[3, 1] = np.nan
        with pytest.raises(DataError, match="1 are not finite, the first in row 3"):
            build_index(pa.array(range(5)), items)
        with pytest.raises(DataError, match="items: 1 are not finite"):
            evaluate_ranking(vectors(2, 3), items, RowLists.of([[0], [1]]))
        with pytest.raises(DataError, match="queries: 1 are not finite"):
            evaluate_ranking(items, vectors(4, 3), RowLists.of([[0]] * 5))

    def test_a_query_finds_nothing(self, retriever):
        users = np.array([[np.nan, 1, 1, 1], [0, 0, 1, 0]], np.float32)
        assert [len(one) for one in retriever.retrieve_vectors(users, 2).ids] == [0, 2]

    def test_candidates(self):
        """A model that gives NaN has not ranked its item first."""
        with pytest.raises(DataError, match="first in row 1"):
            evaluate_candidates(np.array([[1.0, 0], [np.nan, 0]]))

    def test_large_numbers_are_finite(self):
        items = np.full((2, 3), 3e38, np.float32)
        assert len(build_index(pa.array([1, 2]), items)) == 2


def test_a_tower_that_gives_nan(monkeypatch):
    """Neither an index nor a measurement is made of it."""
    rows = pa.record_batch({"item_id": [4, 5]})
    batch = SimpleNamespace(dummy=False, reserves=SimpleNamespace(get=lambda: rows))
    monkeypatch.setattr(towers, "prediction_config", lambda *_: None)
    monkeypatch.setattr(towers.build, "build_loader", lambda *_, **__: _Loader([batch]))
    given = torch.tensor([[1.0, 2], [float("nan"), 1]])
    tower = towers.Tower(None, [], "item_tower_emb", lambda _: {"item_tower_emb": given})
    with pytest.raises(DataError, match=r"item_tower_emb .* t.parquet: 1 are not finite"):
        list(tower.vectors("t.parquet"))


class _Loader(list):
    def close(self):
        pass


def test_numbers_are_not_joined_over_blanks():
    assert to_vectors(pa.array(["1, 2", " [3 ,4]"]), "x").tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match="not lists of numbers"):
        to_vectors(pa.array(["1 2", "3 4"]), "x")


def test_ids_beyond_64_bits():
    with pytest.raises(DataError, match="larger than 64 bits"):
        plain_ids(pa.array([1, 2**63], pa.uint64()), "item ids")


def test_a_vector_without_its_batch(retriever):
    with pytest.raises(DataError, match=r"shape \(4,\)"):
        retriever.retrieve_vectors(np.ones(4, np.float32))


def test_lists_longer_than_those_looked_into():
    """500 items in 50 groups far apart: one list of the inverted file holds few of them."""
    centres = 20 * vectors(50, 8)
    items = (np.repeat(centres, 10, axis=0) + vectors(500, 8, seed=1)).astype(np.float32)
    index = build_index(pa.array(range(500)), items, IndexOptions("ivf", nlist=50, nprobe=1))
    queries = np.concatenate([vectors(6, 8, seed=2), np.zeros((1, 8), np.float32)])
    found = index.search(queries, 400)
    assert (found.positions >= 0).sum(1).tolist() == [400] * 6 + [0]
    for query, row, scores in zip(queries[:6], found.positions, found.scores, strict=False):
        assert len(set(row)) == 400
        np.testing.assert_allclose(scores, items[row] @ query, rtol=1e-4, atol=1e-3)


class TestDamage:
    """Files of the right size with other content."""

    @pytest.fixture
    def saved(self, tmp_path):
        return build_index(pa.array(range(300)), vectors(300, 4)).save(tmp_path / "i")

    @pytest.mark.parametrize("name", ["vectors.npy", "ids.parquet"])
    def test_files(self, saved, name):
        size = (saved / name).stat().st_size
        (saved / name).write_bytes(b"\x55" * size)
        with pytest.raises(ServingError, match=f"{name} is not the file that was written"):
            Index.load(saved)

    def test_files_of_two_indexes_of_one_size(self, saved, tmp_path):
        other = build_index(pa.array(range(300)), vectors(300, 4, seed=1)).save(tmp_path / "j")
        (saved / "vectors.npy").write_bytes((other / "vectors.npy").read_bytes())
        with pytest.raises(ServingError, match="not the file that was written") as caught:
            Index.load(saved)
        assert "files of two indexes were mixed" in str(caught.value)

    def test_a_tower_that_was_put_there_later(self, saved):
        (saved / "user").mkdir()
        (saved / "user" / "manifest.json").write_text("{}")
        with pytest.raises(ServingError, match=r"does not list user/manifest\.json"):
            Index.load(saved)

    @pytest.mark.parametrize("name", ["vectors.npy", "ids.parquet"])
    def test_a_list_without_a_file(self, saved, name):
        body = json.loads((saved / "index.json").read_text())
        del body["files"][name]
        (saved / "index.json").write_text(json.dumps(body))
        with pytest.raises(ServingError, match=f"does not list {name}"):
            Index.load(saved)

    def test_a_list_with_a_file_outside(self, saved):
        body = json.loads((saved / "index.json").read_text())
        body["files"]["../secret"] = {"size": 1, "sha256": "0"}
        (saved / "index.json").write_text(json.dumps(body))
        with pytest.raises(ServingError, match=r"lists '\.\./secret', which is no file"):
            Index.load(saved)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"dim": 5}, r"shape \(300, 4\), its index.json says \(300, 5\)"),
            ({"num_items": 4}, "has 300 ids"),
            ({"files": ["ids"]}, "cannot be read"),
            ({"type": "tree"}, "cannot be read"),
            ({"metric": "cos"}, "cannot be read"),
        ],
        ids=str,
    )
    def test_manifest(self, saved, change, message):
        body = json.loads((saved / "index.json").read_text()) | change
        (saved / "index.json").write_text(json.dumps(body))
        with pytest.raises(ServingError, match=message):
            Index.load(saved)
