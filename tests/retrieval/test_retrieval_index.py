"""Indexes, their directories, ids and tables of vectors."""

import json
import logging
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tzrec.errors import ConfigError, DataError, MissingDependencyError, ServingError
from tzrec.retrieval import faiss_index, index
from tzrec.retrieval.exact import exact_top_k
from tzrec.retrieval.ids import ItemIds, id_lists, plain_ids
from tzrec.retrieval.index import Index, build_index
from tzrec.retrieval.index_info import IndexOptions
from tzrec.retrieval.row_lists import RowLists
from tzrec.retrieval.vectors import read_vectors, to_vectors


def vectors(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def items():
    """A few groups of near items, as trained vectors are."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(20, 16))
    found = centres[rng.integers(0, 20, 2000)] + 0.3 * rng.normal(size=(2000, 16))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module", params=["flat", "ivf", "hnsw"])
def made(request, items):
    ids = pa.array(np.arange(2000) * 3)
    return build_index(ids, items, IndexOptions(type=request.param))


class TestIndex:
    @pytest.mark.parametrize("interests", [(), (3,)])
    def test_finds_nearly_all_of_the_exact_best(self, made, items, interests):
        queries = vectors(50, *interests, 16, seed=1)
        found = made.search(queries, 20)
        right = exact_top_k(queries, items, 20)
        hits = RowLists.of(right.positions).contains(found.positions).mean()
        assert hits == 1 if made.info.type == "flat" else hits > 0.9
        assert (np.diff(found.scores, axis=1) <= 0).all()
        assert all(len(set(row)) == 20 for row in found.positions)
        same = made.search(queries, 20, is_exact=True)
        np.testing.assert_array_equal(same.positions, right.positions)

    def test_scores_are_those_of_the_vectors(self, made, items):
        queries = vectors(7, 16, seed=2)
        found = made.search(queries, 5)
        expected = np.einsum("bd,bkd->bk", queries, items[found.positions])
        np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-5)

    def test_seen_items_are_left_out_and_the_list_stays_full(self, made):
        queries = vectors(9, 16, seed=3)
        first = made.search(queries, 30)
        seen = RowLists.of([row[:n] for n, row in enumerate(first.positions)])
        found = made.search(queries, 10, exclude=seen)
        for n, row in enumerate(found.positions):
            assert row.tolist() == first.positions[n][n : n + 10].tolist()

    def test_zero_vectors_find_nothing(self, made):
        queries = vectors(3, 2, 16)
        queries[1] = 0
        queries[2, 1] = 0
        found = made.search(queries, 4)
        assert (found.positions[1] == -1).all()
        alone = made.search(queries[2, :1], 4)
        np.testing.assert_array_equal(found.positions[2], alone.positions[0])

    def test_saves_and_loads(self, made, tmp_path):
        queries = vectors(5, 16, seed=4)
        path = made.save(tmp_path / "deep" / "index")
        loaded = Index.load(path)
        assert loaded.info == made.info
        np.testing.assert_array_equal(
            loaded.search(queries, 6).positions, made.search(queries, 6).positions
        )
        assert loaded.ids.take(np.array([[1, -1, 7]])).to_pylist() == [3, None, 21]
        np.testing.assert_array_equal(loaded.vectors, made.vectors)
        assert [p.name for p in path.parent.iterdir()] == ["index"]
        with pytest.raises(ConfigError, match="exists already"):
            made.save(path)

    def test_threads(self, made):
        queries = vectors(40, 16, seed=6)
        wanted = made.search(queries, 5).positions
        wrong = []

        def work(rows):
            for row in rows:
                if (made.search(queries[row : row + 1], 5).positions[0] != wanted[row]).any():
                    wrong.append(row)

        threads = [threading.Thread(target=work, args=(range(i, 40, 4),)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_l2(self, items):
        found = {}
        for kind in ("flat", "ivf", "hnsw"):
            one = build_index(pa.array(np.arange(2000)), items, IndexOptions(kind, "l2"))
            found[kind] = one.search(items[:20], 1)
            assert found[kind].positions[:, 0].tolist() == list(range(20))
            np.testing.assert_allclose(found[kind].scores, 0, atol=1e-5)

    def test_mistakes(self, made):
        with pytest.raises(DataError, match="queries have 3 numbers, items have 16"):
            made.search(vectors(2, 3), 4)
        with pytest.raises(ConfigError, match="k is 0"):
            made.search(vectors(2, 16), 0)


class TestBuild:
    def test_auto(self, items, monkeypatch):
        ids = pa.array(np.arange(2000))
        assert build_index(ids, items).info.type == "flat"
        monkeypatch.setattr(index, "_EXACT_UP_TO", 1000)
        made = build_index(ids, items)
        assert made.info.type == "ivf"
        assert made.info.parameters["nlist"] == 2000 // 39
        assert 0.99 <= made.info.recall <= 1
        monkeypatch.setattr(faiss_index, "is_installed", lambda: False)
        assert build_index(ids, items).info.type == "flat"

    def test_without_faiss(self, items, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "faiss", None)
        assert not faiss_index.is_installed()
        with pytest.raises(MissingDependencyError, match="pip install faiss-cpu"):
            build_index(pa.array(np.arange(2000)), items, IndexOptions("ivf"))

    def test_effort_is_what_reaches_the_recall(self, items):
        ids = pa.array(np.arange(2000))
        low = build_index(ids, items, IndexOptions("ivf", nlist=40, recall=0.5)).info
        high = build_index(ids, items, IndexOptions("ivf", nlist=40, recall=1.0)).info
        assert low.parameters["effort"] < high.parameters["effort"]
        assert 0.5 <= low.recall < high.recall == 1
        given = build_index(ids, items, IndexOptions("ivf", nlist=40, nprobe=1)).info
        assert given.parameters == {"nlist": 40, "effort": 1}
        graph = build_index(ids, items, IndexOptions("hnsw", hnsw_m=8, ef_search=3)).info
        assert graph.parameters == {"m": 8, "ef_construction": 200, "effort": 3}

    def test_given_effort_below_the_goal_is_told(self, items, caplog):
        caplog.set_level(logging.WARNING, "tzrec")
        build_index(pa.array(np.arange(2000)), items, IndexOptions("ivf", nlist=40, nprobe=1))
        assert "of the exact best 100, not 99.0 %" in caplog.text

    def test_last_of_the_same_ids(self, caplog):
        caplog.set_level(logging.WARNING, "tzrec")
        data = vectors(6, 4)
        made = build_index(pa.array(["a", "b", "a", "c", "b", "b"]), data)
        assert made.ids.values.to_pylist() == ["a", "c", "b"]
        np.testing.assert_array_equal(made.vectors, data[[2, 3, 5]])
        assert "2 ids occur more than once" in caplog.text
        assert "3 rows are left out" in caplog.text

    def test_more_lists_than_items(self, caplog):
        caplog.set_level(logging.WARNING, "tzrec")
        made = build_index(pa.array([1, 2, 3]), vectors(3, 4), IndexOptions("ivf", nlist=1000))
        assert made.info.parameters["nlist"] == 3
        assert "1000 lists for 3 vectors" in caplog.text

    @pytest.mark.parametrize(
        "options",
        [
            {"type": "flt"},
            {"metric": "cosine"},
            {"nlist": -1},
            {"nprobe": -1},
            {"hnsw_m": 1},
            {"ef_construction": 0},
            {"recall": 0.0},
            {"recall": 1.5},
        ],
    )
    def test_wrong_options(self, options):
        with pytest.raises(ConfigError):
            IndexOptions(**options)

    def test_wrong_items(self):
        with pytest.raises(DataError, match="no items"):
            build_index(pa.array([], pa.int64()), vectors(0, 4))
        with pytest.raises(DataError, match="2 item ids"):
            build_index(pa.array([1, 2]), vectors(3, 4))
        with pytest.raises(DataError, match="1 are missing, the first in row 1"):
            build_index(pa.array([1, None]), vectors(2, 4))


class TestDirectory:
    @pytest.fixture
    def saved(self, tmp_path):
        return build_index(pa.array([1, 2, 3]), vectors(3, 4)).save(tmp_path / "i")

    def test_not_an_index(self, tmp_path):
        with pytest.raises(ServingError, match="no index"):
            Index.load(tmp_path)

    def test_remote(self):
        with pytest.raises(ConfigError, match="local directory"):
            Index.load("memory://bucket/index")
        with pytest.raises(ConfigError, match="local directory"):
            build_index(pa.array([1]), vectors(1, 4)).save("memory://bucket/index")

    def test_incomplete_copies(self, saved):
        (saved / "vectors.npy").write_bytes(b"short")
        with pytest.raises(ServingError, match="has 5 bytes, not"):
            Index.load(saved)
        (saved / "vectors.npy").unlink()
        with pytest.raises(ServingError, match="is missing"):
            Index.load(saved)

    @pytest.mark.parametrize(
        "change", [{"format": "x"}, {"format_version": 1}, {"colour": 1}], ids=str
    )
    def test_other_manifests(self, saved, change):
        body = json.loads((saved / "index.json").read_text()) | change
        (saved / "index.json").write_text(json.dumps(body))
        with pytest.raises(ServingError, match=r"index\.json cannot be read"):
            Index.load(saved)

    def test_nothing_is_left_of_a_failure(self, tmp_path):
        def fail(work):
            raise ServingError("no")

        made = build_index(pa.array([1, 2, 3]), vectors(3, 4))
        with pytest.raises(ServingError):
            made.save(tmp_path / "i", more=fail)
        assert list(tmp_path.iterdir()) == []


class TestIds:
    @pytest.mark.parametrize(
        ("ids", "asked"),
        [
            (pa.array([5, 3, 9], pa.int32()), pa.array([9, 4, None, 5])),
            (pa.array([5, 3, 9]), pa.array(["9", "4", None, "5"])),
            (pa.array(["5", "3", "9"]), pa.array([9, 4, None, 5])),
            (pa.array(["5", "3", "9"], pa.large_string()), pa.array(["9", "x", None, "5"])),
            (pa.array(["5", "3", "9"]).dictionary_encode(), pa.array(["9", "x", None, "5"])),
        ],
    )
    def test_positions(self, ids, asked):
        known = ItemIds(ids)
        assert known.positions(asked).tolist() == [2, -1, -1, 0]

    def test_other_types(self):
        with pytest.raises(DataError, match="integers or strings"):
            plain_ids(pa.array([1.5]), "item ids")
        with pytest.raises(DataError, match="integer ids"):
            ItemIds(pa.array([1])).positions(pa.array(["one"]))

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([[1, 2], [], None, [3]]),
            pa.array([[1, 2], [], None, [3]], pa.large_list(pa.int32())),
            pa.array(["1;2", "", None, "3"]),
            pa.array(["1,2", "", None, "3"]),
            pa.array(["[1, 2]", "[]", None, "[3]"]),
            pa.array(["1\x1d2", "", None, "3"]),
        ],
        ids=str,
    )
    def test_lists(self, column):
        lists = ItemIds(pa.array([3, 1, 2])).row_lists(column)
        assert lists.offsets.tolist() == [0, 2, 2, 2, 3]
        assert lists.values.tolist() == [1, 2, 0]

    def test_text_ids_in_json_lists(self):
        offsets, ids = id_lists(pa.array(['["a", "b"]', '["c"]']))
        assert offsets.tolist() == [0, 2, 3]
        assert ids.to_pylist() == ["a", "b", "c"]

    def test_separator(self):
        lists = ItemIds(pa.array(["a;b", "c"])).row_lists(pa.array(["a;b|c"]), "|")
        assert lists.values.tolist() == [0, 1]

    def test_one_id_a_row(self):
        offsets, ids = id_lists(pa.array([7, None, 8]))
        assert offsets.tolist() == [0, 1, 1, 2]
        assert ids.to_pylist() == [7, 8]

    def test_wrong_list(self):
        with pytest.raises(DataError, match="list of ids has type"):
            id_lists(pa.array([{"a": 1}]))


class TestVectors:
    @pytest.mark.parametrize(
        "column",
        [
            pa.array([[1.0, 2], [3, 4]]),
            pa.array([[1.0, 2], [3, 4]], pa.list_(pa.float32(), 2)),
            pa.array([[1, 2], [3, 4]], pa.large_list(pa.int64())),
            pa.array(["1,2", " [3, 4.0]"]),
        ],
        ids=lambda c: str(c.type),
    )
    def test_one_vector(self, column):
        found = to_vectors(column, "x")
        assert found.dtype == np.float32
        assert found.tolist() == [[1, 2], [3, 4]]

    @pytest.mark.parametrize("as_text", [False, True])
    def test_interests(self, as_text):
        lists = [[[1.0, 2], [3, 4]], [[5.0, 6], [7, 8]]]
        column = pa.array([json.dumps(one) for one in lists] if as_text else lists)
        assert to_vectors(column, "x").tolist() == lists

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            (pa.array([[1.0], [1.0, 2]]), "not all of one size: 1, 2"),
            (pa.array([[1.0], None]), "1 vectors are missing, the first in row 1"),
            (pa.array([[1.0], [float("nan")]]), "1 vectors are not finite, first in row 1"),
            (pa.array([1.0]), "type double, not lists"),
            (pa.array(["1,x"]), "not lists of numbers"),
            (pa.array([["a"]]), "not lists of numbers"),
            (pa.array(["[[1],"]), "not lists of vectors"),
        ],
    )
    def test_mistakes(self, column, message):
        with pytest.raises(DataError, match=message):
            to_vectors(column, "here")

    def test_table_tells_its_columns(self, tmp_path):
        table = pa.table({"item_tower_emb": [[1.0, 2], [3, 4]], "item_id": ["a", "b"]})
        pq.write_table(table, tmp_path / "part-0.parquet")
        found = read_vectors(str(tmp_path))
        assert found.id_field == "item_id"
        assert found.ids.to_pylist() == ["a", "b"]
        assert found.vectors.tolist() == [[1, 2], [3, 4]]

    def test_csv(self, tmp_path):
        (tmp_path / "part-0.csv").write_text('id,v,note\n1,"0.5,2",x\n2,"[1, 3]",y\n')
        found = read_vectors(str(tmp_path), id_field="id", vector_field="v", batch_size=1)
        assert found.ids.to_pylist() == [1, 2]
        assert found.vectors.tolist() == [[0.5, 2], [1, 3]]

    def test_unclear_columns(self, tmp_path):
        table = pa.table({"a": [1], "b": [2], "v": [[1.0]], "w": [[1.0]]})
        path = str(tmp_path / "t.parquet")
        pq.write_table(table, path)
        with pytest.raises(ConfigError, match="--vector-field"):
            read_vectors(path)
        with pytest.raises(ConfigError, match="--id-field"):
            read_vectors(path, vector_field="v")
        with pytest.raises(DataError, match="idd"):
            read_vectors(path, vector_field="v", id_field="idd")

    def test_sizes_that_change_within_a_table(self, tmp_path):
        table = pa.table({"id": [1, 2], "v": [[1.0], [1.0, 2]]})
        pq.write_table(table, tmp_path / "t.parquet")
        with pytest.raises(DataError, match="not all of one size"):
            read_vectors(str(tmp_path / "t.parquet"), batch_size=1)
