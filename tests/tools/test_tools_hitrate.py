"""The interface's hit rate, against a loop."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from rank_runs import torchrun

from tzrec.retrieval import faiss_index
from tzrec.tools.hitrate import main

NUM_USERS, NUM_ITEMS, DIM = 60, 200, 6


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    items = rng.normal(size=(NUM_ITEMS, DIM)).astype(np.float32)
    users = rng.normal(size=(NUM_USERS, 3, DIM)).astype(np.float32)
    users[5] = 0
    users[6, 1:] = 0
    right = [list(map(int, rng.integers(0, NUM_ITEMS, n % 5))) for n in range(NUM_USERS)]
    counts = 1 + np.arange(NUM_USERS) % 3
    return items, users, right, counts


def write(root, data, *, interests=1, ids=None, text=False):
    items, users, right, counts = data
    ids = list(range(NUM_ITEMS)) if ids is None else ids
    flat = users[:, :interests].reshape(NUM_USERS, -1)
    named = [[ids[one] for one in row] for row in right]
    pq.write_table(
        pa.table({"item_id": ids, "item_tower_emb": list(items)}), root / "items.parquet"
    )
    cells = [",".join(map(str, row)) for row in named] if text else named
    vectors = [",".join(map(str, row)) for row in flat] if text else list(flat)
    pq.write_table(
        pa.table(
            {
                "request_id": [f"r{n}" for n in range(NUM_USERS)],
                "gt_items": cells,
                "user_tower_emb": vectors,
                "many": counts,
            }
        ),
        root / "users.parquet",
    )


def flags(root):
    return ["--user_gt_input", str(root / "users.parquet"), "--item_embedding_input",
            str(root / "items.parquet"), "--total_hitrate_output", str(root / "total"),
            "--hitrate_details_output", str(root / "details"), "--ivf_nlist", "4"]  # fmt: skip


def run(root, *words):
    return main([*flags(root), *map(str, words)])


def nearest(scores, k):
    return [int(i) for i in np.argsort(-scores, kind="stable")[:k]]


def scores_of(items, vector, metric="ip"):
    return items @ vector if metric == "ip" else -((items - vector) ** 2).sum(1)


def expected(data, k, *, interests=1, across=False, metric="ip", counts=None):
    """Found ids of each row, interest after interest or the best of all."""
    items, users, _, _ = data
    lists = []
    for row in range(NUM_USERS):
        kept = users[row, : interests if counts is None else min(interests, counts[row])]
        each = [scores_of(items, v, metric) for v in kept if v.any()]
        if across:
            lists.append(nearest(np.max(each, axis=0), k) if each else [])
        else:
            lists.append([i for scores in each for i in nearest(scores, k)])
    return lists


def check(root, data, lists, ids=None):
    ids = list(range(NUM_ITEMS)) if ids is None else ids
    details = pq.read_table(root / "details").to_pylist()
    assert [row["id"] for row in details] == [f"r{n}" for n in range(NUM_USERS)]
    hits = 0
    for row, found, right in zip(details, lists, data[2], strict=True):
        assert row["topk_ids"] == [ids[i] for i in found]
        common = set(found) & set(right)
        hits += len(common)
        assert sorted(row["hit_ids"]) == sorted(ids[i] for i in common)
        rate = len(common) / len(set(right)) if right else 0
        assert row["hitrate"] == pytest.approx(rate)
        assert len(row["topk_dists"]) == len(found)
    total = pq.read_table(root / "total")
    assert total.column_names == ["hitrate"]
    asked = sum(len(set(right)) for right in data[2])
    assert total["hitrate"].to_pylist() == [pytest.approx(hits / asked)]
    assert hits


class TestHitRate:
    def test_missing_right_ids_do_not_count(self, data, tmp_path):
        write(tmp_path, data)
        path = tmp_path / "users.parquet"
        table = pq.read_table(path)
        lists = pa.array([[*row, None] for row in table["gt_items"].to_pylist()])
        pq.write_table(table.set_column(1, "gt_items", lists), path)
        assert run(tmp_path, "--top_k", 20) == 0
        check(tmp_path, data, expected(data, 20))

    @pytest.mark.parametrize(
        ("column", "values", "message"),
        [
            ("gt_items", ["a"] * NUM_USERS, "items have integer ids"),
            ("user_tower_emb", [[1.0] * 2 * DIM] * NUM_USERS, "--num_interests"),
            ("many", ["x"] * NUM_USERS, "'many' has type string, not numbers"),
        ],
    )
    def test_wrong_users(self, data, tmp_path, capfd, column, values, message):
        write(tmp_path, data)
        path = tmp_path / "users.parquet"
        table = pq.read_table(path).drop_columns([column]).append_column(column, pa.array(values))
        pq.write_table(table, path)
        assert run(tmp_path, "--top_k", 20, "--num_interests_field", "many") == 3
        assert message in capfd.readouterr().err

    @pytest.mark.parametrize("metric", ["IP", "L2"])
    def test_one_vector(self, data, tmp_path, metric):
        write(tmp_path, data)
        assert run(tmp_path, "--top_k", 20, "--index_type", f"IVFFlat{metric}",
                   "--batch_size", 7) == 0  # fmt: skip
        check(tmp_path, data, expected(data, 20, metric=metric.lower()))
        first = pq.read_table(tmp_path / "details").to_pylist()[0]
        items, users = data[0], data[1][0, 0]
        values = items[first["topk_ids"]] @ users
        if metric == "L2":
            values = ((items[first["topk_ids"]] - users) ** 2).sum(1)
        np.testing.assert_allclose(first["topk_dists"], values, rtol=1e-4)

    @pytest.mark.parametrize("across", [False, True])
    def test_interests(self, data, tmp_path, across):
        write(tmp_path, data, interests=3)
        words = ["--topk_across_interests"] if across else []
        assert run(tmp_path, "--top_k", 15, "--num_interests", 3, *words) == 0
        check(tmp_path, data, expected(data, 15, interests=3, across=across))

    def test_number_of_interests_of_a_row(self, data, tmp_path):
        write(tmp_path, data, interests=3)
        assert run(tmp_path, "--top_k", 15, "--num_interests", 3, "--num_interests_field",
                   "many") == 0  # fmt: skip
        check(tmp_path, data, expected(data, 15, interests=3, counts=data[3]))

    def test_text(self, data, tmp_path):
        ids = [f"i{n}" for n in range(NUM_ITEMS)]
        write(tmp_path, data, ids=ids, text=True)
        assert run(tmp_path, "--top_k", 20) == 0
        check(tmp_path, data, expected(data, 20), ids)

    def test_csv_output(self, data, tmp_path):
        write(tmp_path, data)
        assert run(tmp_path, "--top_k", 3, "--writer_type", "CsvWriter") == 0
        details = pacsv.read_csv(tmp_path / "details" / "part-0.csv").to_pylist()
        lists = expected(data, 3)
        assert [json.loads(row["topk_ids"]) for row in details] == lists
        assert (tmp_path / "total" / "part-0.csv").read_text().startswith('"hitrate"')

    def test_fewer_probes_find_less(self, data, tmp_path):
        write(tmp_path, data)
        rates = []
        for probes in (1, 4):
            assert run(tmp_path, "--top_k", 20, "--ivf_nprobe", probes) == 0
            rates += pq.read_table(tmp_path / "total")["hitrate"].to_pylist()
        assert rates[0] < rates[1]

    def test_without_faiss(self, data, tmp_path, monkeypatch):
        monkeypatch.setattr(faiss_index, "is_installed", lambda: False)
        write(tmp_path, data)
        assert run(tmp_path, "--top_k", 20, "--ivf_nprobe", 1) == 0
        check(tmp_path, data, expected(data, 20))

    def test_other_columns(self, data, tmp_path):
        write(tmp_path, data)
        for name in ("items", "users"):
            table = pq.read_table(tmp_path / f"{name}.parquet")
            names = [f"my_{column}" for column in table.column_names]
            pq.write_table(table.rename_columns(names), tmp_path / f"{name}.parquet")
        words = [
            word
            for flag, name in (
                ("item_id", "item_id"),
                ("item_embedding", "item_tower_emb"),
                ("request_id", "request_id"),
                ("gt_items", "gt_items"),
                ("user_embedding", "user_tower_emb"),
            )
            for word in (f"--{flag}_field", f"my_{name}")
        ]
        assert run(tmp_path, "--top_k", 20, *words) == 0
        check(tmp_path, data, expected(data, 20))

    def test_mistakes(self, data, tmp_path, capsys):
        write(tmp_path, data)
        assert run(tmp_path, "--top_k", 0) == 2
        assert run(tmp_path, "--batch_size", 0) == 2
        assert run(tmp_path, "--gt_items_field", "gt_item") == 3
        assert "gt_items" in capsys.readouterr().err
        assert run(tmp_path, "--num_interests", 4) == 3
        assert "do not hold 4 interests" in capsys.readouterr().err
        assert not list(tmp_path.glob("*/part-*"))


@pytest.mark.slow
def test_two_processes_add_up(data, tmp_path):
    """Each takes every other batch; the total is of both."""
    write(tmp_path, data)
    words = [*flags(tmp_path), "--batch_size", "7", "--top_k", "20"]
    torchrun("-m", "tzrec.tools.hitrate", *words, seconds=120)
    lists = expected(data, 20)
    rows = [
        row
        for rank in range(2)
        for row in pq.read_table(tmp_path / "details" / f"part-{rank}.parquet").to_pylist()
    ]
    assert sorted(row["id"] for row in rows) == sorted(f"r{n}" for n in range(NUM_USERS))
    hits = sum(len(set(f) & set(r)) for f, r in zip(lists, data[2], strict=True))
    asked = sum(len(set(right)) for right in data[2])
    total = pq.read_table(tmp_path / "total")["hitrate"].to_pylist()
    assert total == [pytest.approx(hits / asked)]
