"""From a trained model to retrieved items, through the commands and in Python."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from match_jobs import NUM_ITEMS, NUM_TASTES, make_rows, run, taste_of

from tzrec.deploy import Predictor
from tzrec.errors import ConfigError, DataError, ServingError
from tzrec.retrieval import Index, Retriever
from tzrec.retrieval.towers import load_tower, metric_of


def columns_of(table: pa.Table, rows=slice(None)) -> dict:
    return {name: table[name].to_pylist()[rows] for name in ("user_id", "likes", "age")}


@pytest.fixture(scope="module")
def vectors(trained):
    """Vectors of the test's users and of all items, straight from the exported towers."""
    users = Predictor.load(trained.export / "user").predict(trained.test)["user_tower_emb"]
    items = Predictor.load(trained.export / "item").predict(trained.items)["item_tower_emb"]
    return users, items


class TestEmbed:
    @pytest.mark.parametrize("source", ["export", "export/item", "run", "job.config"])
    def test_from_everywhere(self, trained, vectors, tmp_path, source):
        words = ["--tower", "item", "--input", trained.root / "items.parquet"]
        assert run("embed", trained.root / source, *words, "--out", tmp_path / "o",
                   "--batch-size", 7, "--reserved-columns", "name") == 0  # fmt: skip
        found = pq.read_table(tmp_path / "o")
        assert found.column_names == ["item_tower_emb", "item_id", "name"]
        assert found["item_id"].to_pylist() == list(range(NUM_ITEMS))
        made = np.array(found["item_tower_emb"].to_pylist(), np.float32)
        np.testing.assert_allclose(made, vectors[1], rtol=0, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)

    def test_one_by_one_as_in_a_batch(self, trained, vectors):
        retriever = Retriever.load(trained.retriever)
        for row in range(0, 300, 23):
            alone = retriever.embed(columns_of(trained.test, slice(row, row + 1)))
            np.testing.assert_allclose(alone[0], vectors[0][row], rtol=0, atol=1e-6)

    def test_csv(self, trained, tmp_path):
        assert run("embed", trained.export, "--tower", "user", "--id-field", "user_id", "--input",
                   trained.root / "test.parquet", "--out", tmp_path / "o", "--writer-type",
                   "CsvWriter") == 0  # fmt: skip
        assert run("index", tmp_path / "o", "--out", tmp_path / "i", "--id-field", "user_id") == 0
        assert len(Index.load(tmp_path / "i")) == len(set(trained.test["user_id"].to_pylist()))

    def test_mistakes(self, trained, tmp_path, capsys):
        base = ["--input", trained.root / "test.parquet", "--out", tmp_path / "o"]
        assert run("embed", trained.export, "--tower", "user", *base) == 2
        assert "--id-field user_id" in capsys.readouterr().err
        assert run("embed", trained.export / "user", "--tower", "item", *base) == 2
        assert "it is no item tower" in capsys.readouterr().err
        assert run("embed", trained.export, "--tower", "item", "--checkpoint", "best", *base) == 2
        assert "for the config of a run" in capsys.readouterr().err
        assert run("embed", tmp_path, "--tower", "item", *base) == 2
        assert "neither an export nor the directory of a run" in capsys.readouterr().err
        assert run("embed", trained.export, "--tower", "item", "--id-field", "nam", *base) != 0
        assert not list((tmp_path / "o").glob("*"))
        with pytest.raises(ConfigError, match="tower 'ad'"):
            load_tower(str(trained.export), "ad")


class TestPredict:
    def test_a_checkpoint_says_what_to_do(self, trained, tmp_path, capsys):
        base = ["--input", trained.root / "test.parquet", "--output", tmp_path / "o"]
        assert run("predict", trained.config, *base) == 2
        assert "tzrec embed" in capsys.readouterr().err
        assert run("predict", trained.export, *base) == 2
        assert "export in parts: item, user" in capsys.readouterr().err

    def test_an_export_in_parts_is_no_predictor(self, trained):
        with pytest.raises(ServingError, match="export in parts: item, user"):
            Predictor.load(trained.export)


class TestIndex:
    def test_what_lies_in_a_retriever(self, trained, vectors):
        names = sorted(path.name for path in trained.retriever.iterdir())
        assert names == ["ids.parquet", "index.json", "user", "vectors.npy"]
        index = Index.load(trained.retriever)
        assert index.info.id_field == "item_id"
        assert index.info.metric == "ip"
        np.testing.assert_allclose(index.vectors, vectors[1], rtol=0, atol=1e-6)

    def test_vectors_with_a_user_tower(self, trained, tmp_path):
        out = tmp_path / "vectors"
        assert run("embed", trained.export, "--tower", "item", "--input",
                   trained.root / "items.parquet", "--out", out) == 0  # fmt: skip
        assert run("index", out, "--out", tmp_path / "r", "--user-tower", trained.export,
                   "--type", "ivf", "--nlist", 4) == 0  # fmt: skip
        made, right = Retriever.load(tmp_path / "r"), Retriever.load(trained.retriever)
        rows = columns_of(trained.test, slice(0, 9))
        assert made.index.info.type == "ivf"
        assert made.retrieve(rows, 5).ids == right.retrieve(rows, 5).ids

    def test_mistakes(self, trained, tmp_path, capsys):
        assert run("index", trained.export, "--out", tmp_path / "r") == 2
        assert "--items" in capsys.readouterr().err
        items = ["--items", trained.root / "items.parquet", "--out", tmp_path / "r"]
        assert run("index", trained.export / "item", *items) == 2
        assert "no user and no item tower" in capsys.readouterr().err
        assert run("index", trained.export, *items, "--user-tower", "x") == 2
        assert "--user-tower is for a table of vectors" in capsys.readouterr().err
        assert run("index", trained.export, *items[:2], "--out", trained.retriever) == 2
        assert "exists already" in capsys.readouterr().err
        wide = pa.table({"item_id": [1, 2], "v": [[1.0, 2], [3, 4]]})
        pq.write_table(wide, tmp_path / "wide.parquet")
        assert run("index", tmp_path / "wide.parquet", "--out", tmp_path / "r",
                   "--user-tower", trained.export) == 2  # fmt: skip
        assert "vectors of 8 numbers, items have 2" in capsys.readouterr().err
        assert not (tmp_path / "r").exists()

    @pytest.mark.parametrize(
        ("similarity", "metric"), [("COSINE", "ip"), ("INNER_PRODUCT", "ip"), ("EUCLID", "l2")]
    )
    def test_metric_is_that_of_the_model(self, trained, similarity, metric):
        from tzrec.config import prepare

        edits = [f"model_config.dssm.similarity={similarity}"]
        assert metric_of(prepare(str(trained.config), edits=edits).config) == metric


class TestRetriever:
    def test_against_all_scores(self, trained, vectors):
        retriever = Retriever.load(trained.retriever)
        found = retriever.retrieve(columns_of(trained.test), k=7)
        scores = vectors[0] @ vectors[1].T
        order = np.argsort(-scores, axis=1)[:, :7]
        assert len(found) == 300
        assert np.mean([a == b for a, b in zip(found.ids, order.tolist(), strict=True)]) > 0.99
        np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order, 1), atol=1e-5)

    def test_users_get_items_of_their_taste(self, trained):
        retriever = Retriever.load(trained.retriever)
        ids = np.array(retriever.retrieve(columns_of(trained.test), k=5).ids)
        tastes = np.array(trained.test["user_id"])[:, None] % NUM_TASTES
        assert (taste_of(ids) == tastes).mean() > 0.9

    @pytest.mark.parametrize("form", [list, pa.array, lambda x: pa.array(["3,7", None])])
    def test_exclude(self, trained, form):
        retriever = Retriever.load(trained.retriever)
        rows = columns_of(trained.test, slice(0, 2))
        everything = retriever.retrieve(rows, NUM_ITEMS).ids
        found = retriever.retrieve(rows, NUM_ITEMS, exclude=form([[3, 7], None])).ids
        assert found == [[i for i in everything[0] if i not in (3, 7)], everything[1]]

    def test_columns(self, trained):
        retriever = Retriever.load(trained.retriever)
        assert sorted(retriever.input_columns) == ["age", "likes", "user_id"]
        assert len(retriever.retrieve({name: [] for name in retriever.input_columns})) == 0

    def test_mistakes(self, trained):
        retriever = Retriever.load(trained.retriever)
        rows = columns_of(trained.test, slice(0, 2))
        with pytest.raises(DataError, match="exclude has 1 rows, there are 2 users"):
            retriever.retrieve(rows, exclude=[[1]])
        with pytest.raises(DataError, match="lack the columns age"):
            retriever.retrieve({name: rows[name] for name in ("user_id", "likes")})
        with pytest.raises(ConfigError, match="k is 0"):
            retriever.retrieve(rows, 0)
        bare = Retriever(retriever.index)
        with pytest.raises(ServingError, match="no user tower"):
            bare.retrieve(rows)
        assert (
            bare.retrieve_vectors(retriever.embed(rows), 3).ids == retriever.retrieve(rows, 3).ids
        )


def write_log(path):
    """Users 0 and 1 have seen items; a list of one user comes in two rows."""
    log = pa.table({"uid": [0, 1, 0, 99], "items": ["0;4", "1", "8;12;777", "2"]})
    pq.write_table(log, path)
    return {0: {0, 4, 8, 12}, 1: {1}}


class TestRetrieve:
    @pytest.mark.parametrize("source", ["rows", "vectors"])
    def test_table(self, trained, tmp_path, source):
        retriever, table = trained.retriever, trained.root / "test.parquet"
        if source == "vectors":
            table = tmp_path / "users"
            assert run("embed", trained.export, "--tower", "user", "--input",
                       trained.root / "test.parquet", "--out", table, "--id-field",
                       "user_id") == 0  # fmt: skip
        words = ["--vector-field", "user_tower_emb"] if source == "vectors" else []
        assert run("retrieve", retriever, "--input", table, "--out", tmp_path / "o", "--k", 6,
                   "--user-field", "user_id", "--batch-size", 41, *words) == 0  # fmt: skip
        found = pq.read_table(tmp_path / "o")
        assert found.column_names == ["user_id", "item_ids", "scores"]
        assert found["user_id"].to_pylist() == trained.test["user_id"].to_pylist()
        direct = Retriever.load(retriever).retrieve(columns_of(trained.test), 6)
        same = [a == b for a, b in zip(found["item_ids"].to_pylist(), direct.ids, strict=True)]
        assert np.mean(same) > 0.99
        np.testing.assert_allclose(found["scores"].to_pylist(), direct.scores, atol=1e-5)

    def test_seen(self, trained, tmp_path):
        rows = trained.test.append_column("user", trained.test["user_id"])
        rows = rows.append_column("uid", trained.test["user_id"])
        own = [[20] if n % 2 else None for n in range(300)]
        pq.write_table(rows.append_column("had", pa.array(own)), tmp_path / "t.parquet")
        seen = write_log(tmp_path / "log.parquet")
        assert run("retrieve", trained.retriever, "--input", tmp_path / "t.parquet", "--out",
                   tmp_path / "o", "--k", NUM_ITEMS, "--seen", tmp_path / "log.parquet",
                   "--user-field", "uid", "--item-field", "items", "--seen-column", "had",
                   "--reserved-columns", "uid") == 0  # fmt: skip
        found = pq.read_table(tmp_path / "o").to_pylist()
        for number, row in enumerate(found):
            hidden = seen.get(row["uid"], set()) | ({20} if number % 2 else set())
            assert set(row["item_ids"]) == set(range(NUM_ITEMS)) - hidden

    def test_mistakes(self, trained, tmp_path, capsys):
        base = [trained.retriever, "--input", trained.root / "test.parquet", "--out"]
        assert run("retrieve", *base, tmp_path / "o") == 2
        assert "--reserved-columns user_id" in capsys.readouterr().err
        kept = ["--reserved-columns", "user_id"]
        assert run("retrieve", *base, tmp_path / "o", *kept, "--item-field", "x") == 2
        assert "--item-field is for --seen" in capsys.readouterr().err
        log = trained.root / "train.parquet"
        assert run("retrieve", *base, tmp_path / "o", *kept, "--seen", log) == 2
        assert "--user-field" in capsys.readouterr().err
        assert run("retrieve", *base, tmp_path / "o", "--reserved-columns", "scores") == 2
        assert "written twice" in capsys.readouterr().err
        assert run("retrieve", trained.export, *base[1:], tmp_path / "o", *kept) == 1
        assert "no index" in capsys.readouterr().err
        assert not list(tmp_path.rglob("*.parquet"))


def oracle(scores, right, k):
    """Recall and NDCG of one query after the other."""
    recall = ndcg = 0.0
    for row, items in zip(scores, right, strict=True):
        top = np.argsort(-row)[:k]
        hits = [int(i) in items and np.isfinite(row[i]) for i in top]
        recall += sum(hits) / len(items)
        gained = sum(h / math.log2(n + 2) for n, h in enumerate(hits))
        ndcg += gained / sum(1 / math.log2(n + 2) for n in range(min(len(items), k)))
    return recall / len(right), ndcg / len(right)


class TestHitrate:
    def test_rows(self, trained, vectors, tmp_path, capsys):
        assert run("hitrate", trained.retriever, "--input", trained.root / "test.parquet",
                   "--k", "1,5", "--out", tmp_path / "m.json") == 0  # fmt: skip
        metrics = json.loads((tmp_path / "m.json").read_text())["metrics"]
        right = [{item} for item in trained.test["item_id"].to_pylist()]
        recall, ndcg = oracle(vectors[0] @ vectors[1].T, right, 5)
        assert metrics["recall@5"] == pytest.approx(recall, abs=1e-9)
        assert metrics["ndcg@5"] == pytest.approx(ndcg, abs=1e-9)
        assert metrics["recall@5"] > 2 * 5 / NUM_ITEMS
        shown = capsys.readouterr().out
        assert "300 queries, 40 items" in shown
        assert f"{recall:.5f}" in shown

    def test_by_user_without_seen_items(self, trained, vectors, tmp_path):
        users = trained.test["user_id"].to_pylist()
        seen = write_log(tmp_path / "log.parquet")
        log = pq.read_table(tmp_path / "log.parquet").rename_columns(["user_id", "item_id"])
        pq.write_table(log, tmp_path / "log.parquet")
        assert run("hitrate", trained.retriever, "--input", trained.root / "test.parquet",
                   "--k", "10", "--by-user", "--user-field", "user_id", "--seen",
                   tmp_path / "log.parquet", "--out", tmp_path / "m.json") == 0  # fmt: skip
        body = json.loads((tmp_path / "m.json").read_text())
        first = {user: users.index(user) for user in dict.fromkeys(users)}
        taken: dict[int, set[int]] = {user: set() for user in first}
        for user, item in zip(users, trained.test["item_id"].to_pylist(), strict=True):
            taken[user].add(item)
        scores = vectors[0][list(first.values())] @ vectors[1].T
        for row, user in enumerate(first):
            scores[row, list(seen.get(user, ()))] = -np.inf
        recall, ndcg = oracle(scores, list(taken.values()), 10)
        assert body["num_queries"] == len(first)
        assert body["metrics"]["recall@10"] == pytest.approx(recall, abs=1e-9)
        assert body["metrics"]["ndcg@10"] == pytest.approx(ndcg, abs=1e-9)

    def test_items_that_cannot_be_found(self, trained, tmp_path, capsys):
        rows = make_rows(3).set_column(3, "item_id", pa.array(["0;999;999", "1", ""]))
        pq.write_table(rows, tmp_path / "t.parquet")
        assert run("hitrate", trained.retriever, "--input", tmp_path / "t.parquet", "--k",
                   NUM_ITEMS, "--out", tmp_path / "m.json") == 0  # fmt: skip
        body = json.loads((tmp_path / "m.json").read_text())
        assert (body["num_queries"], body["num_skipped"]) == (2, 1)
        assert body["metrics"][f"recall@{NUM_ITEMS}"] == pytest.approx(0.75)
        assert "1 of 3 right items are not in the index" in capsys.readouterr().err

    def test_mistakes(self, trained, tmp_path, capsys):
        base = ["hitrate", trained.retriever, "--input", trained.root / "test.parquet"]
        assert run(*base, "--k", "0,5") == 2
        assert "whole numbers" in capsys.readouterr().err
        assert run(*base, "--by-user") == 2
        assert "--user-field" in capsys.readouterr().err
        assert run(*base, "--item-field", "item") != 0
        assert run(*base, "--out", tmp_path / "no" / "m.json") == 2
        assert "no such directory" in capsys.readouterr().err
