"""The retrieval benchmarks: splits, tables, bookkeeping, and that every config is sound."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tzrec.config import prepare
from tzrec.retrieval.row_lists import RowLists

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "accuracy"


@pytest.fixture(scope="module")
def bench():
    """The modules of the benchmark, which are scripts and no package."""
    sys.path.insert(0, str(FOLDER))
    names = ("runs", "ranking", "gowalla", "ml_1m_next")
    found = {name: importlib.import_module(name) for name in names}
    yield type("Bench", (), found)
    sys.path.remove(str(FOLDER))
    for name in names:
        sys.modules.pop(name, None)


def pairs_of(path):
    table = pq.read_table(path)
    return list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))


@pytest.fixture
def gowalla(bench, tmp_path):
    """A small set in the form of Gowalla, converted: (directory of the runs, train, test)."""
    rng = np.random.default_rng(0)
    lines = {"train": {}, "test": {}}
    for user in range(12):
        items = rng.permutation(30)
        lines["train"][user] = items[: 10 + user].tolist()
        lines["test"][user] = items[-3:].tolist()
    lines["train"][0].append(29)
    source = tmp_path / "source"
    source.mkdir()
    for name, users in lines.items():
        text = "".join(f"{u} {' '.join(map(str, items))}\n" for u, items in users.items())
        (source / f"{name}.txt").write_text(text)
    bench.gowalla.convert(source, tmp_path / "gowalla" / "data")
    return tmp_path / "gowalla", lines["train"], lines["test"]


def test_gowalla_holds_out_a_tenth_of_train_and_never_a_pair_of_test(gowalla):
    directory, train, test = gowalla
    everything = {(user, item) for user, items in train.items() for item in items}
    for part, judged in (("choose", None), ("final", test)):
        data = directory / "data" / part
        learnt, seen = pairs_of(data / "train.parquet"), pairs_of(data / "seen.parquet")
        relevant = pairs_of(data / "relevant.parquet")
        assert sorted(learnt) == sorted(seen)
        if judged is None:
            assert not set(learnt) & set(relevant)
            assert set(learnt) | set(relevant) == everything
            counts = np.bincount([user for user, _ in relevant], minlength=len(train))
            expected = [round(len(items) * 0.1) for items in train.values()]
            assert counts.tolist() == expected
        else:
            assert set(learnt) == everything
            assert set(relevant) == {(u, item) for u, items in judged.items() for item in items}
        assert pq.read_table(data / "items.parquet")["item_id"].to_pylist() == list(range(30))


def test_next_movie_split_leaves_the_last_two_out(bench, tmp_path):
    lengths = {7: 5, 2: 230, 4: 3}
    users = np.concatenate([np.full(n, user) for user, n in lengths.items()])
    items = np.concatenate([user * 1000 + np.arange(n) for user, n in lengths.items()])
    bench.ml_1m_next.write(bench.ranking.Pairs(users, items), tmp_path)
    for part, from_end in (("choose", 2), ("final", 1)):
        data = tmp_path / part
        table = pq.read_table(data / "users.parquet").to_pylist()
        assert [row["user_id"] for row in table] == [2, 4, 7]
        target = dict(pairs_of(data / "relevant.parquet"))
        seen = pairs_of(data / "seen.parquet")
        for row in table:
            user, length = row["user_id"], lengths[row["user_id"]]
            before = [user * 1000 + i for i in range(length - from_end)]
            assert row["history__item_id"] == before[-200:]
            assert target[user] == user * 1000 + length - from_end
            assert [item for u, item in seen if u == user] == before
        learnt = pq.read_table(data / "train.parquet").to_pylist()
        for row in learnt:
            user, length = row["user_id"], lengths[row["user_id"]]
            events = [user * 1000 + i for i in range(length - 2)]
            assert [*row["history__item_id"], row["item_id"]] == events[-201:]


def test_closed_form_is_that_of_dense_algebra(bench):
    rng = np.random.default_rng(3)
    R = (rng.random((14, 11)) < 0.4).astype(float)
    R[:, 0] = R[0] = 1
    users, items = np.nonzero(R)
    scores = bench.gowalla.gf_cf(bench.ranking.Pairs(users, items), R.shape, rank=4, alpha=0.3)
    of_users, of_items = np.diag(R.sum(1) ** -0.5), np.diag(R.sum(0) ** -0.5)
    normal = of_users @ R @ of_items
    V = np.linalg.svd(normal)[2][:4].T
    low_pass = of_items @ V @ V.T @ np.linalg.inv(of_items)
    expected = R @ (normal.T @ normal + 0.3 * low_pass)
    np.testing.assert_allclose(scores(np.arange(14)), expected, rtol=1e-4, atol=1e-5)


def test_ranking_of_scores_leaves_out_what_was_seen(bench):
    rng = np.random.default_rng(4)
    values = rng.random((6, 40))
    seen = RowLists.of([rng.permutation(40)[:5] for _ in range(6)])
    right = [[int(rng.integers(40))] for _ in range(6)]
    result = bench.gowalla.ranked(lambda users: values[users].copy(), seen, RowLists.of(right), 40)
    recalls, gains = [], []
    for row in range(6):
        known = set(seen.values[seen.offsets[row] : seen.offsets[row + 1]].tolist())
        best = [i for i in np.argsort(-values[row]) if i not in known][:20]
        recalls.append(right[row][0] in best)
        gains.append(1 / np.log2(best.index(right[row][0]) + 2) if recalls[-1] else 0)
    assert result.metrics["recall@20"] == pytest.approx(np.mean(recalls))
    assert result.metrics["ndcg@20"] == pytest.approx(np.mean(gains))


class Commands:
    """Stands for `tzrec train`: notes the arguments and leaves checkpoints."""

    def __init__(self):
        self.calls = []

    def __call__(self, arguments, log, threads):
        self.calls.append(list(arguments))
        model_dir = Path(arguments[arguments.index("--model-dir") + 1])
        for step in (9, 90, 100):
            (model_dir / f"model.ckpt-{step}").mkdir(parents=True)


@pytest.fixture
def ranks(bench, monkeypatch):
    """Stands for the ranking: (checkpoint, part) of the calls; step 90 is the best one."""
    calls = []
    values = {"model.ckpt-9": 0.1, "model.ckpt-90": 0.3, "model.ckpt-100": 0.2}

    def rank(model_dir, checkpoint, part, metrics):
        calls.append((checkpoint.name, part.name))
        return dict.fromkeys(metrics, values[checkpoint.name])

    monkeypatch.setattr(bench.ranking, "rank", rank)
    return calls


def test_gowalla_run_learns_all_of_train_and_ranks_its_end(bench, tmp_path, ranks):
    commands = Commands()
    arguments = (bench.gowalla.DATASET, "mf", 3, tmp_path)
    result = bench.ranking.run(*arguments, command=commands)
    assert ranks == [("model.ckpt-100", "final")]
    assert result["test"] == {"recall@20": 0.2, "ndcg@20": 0.2}
    assert f"train_input_path={tmp_path}/data/final/train.parquet" in commands.calls[0]
    assert "train_config.seed=3" in commands.calls[0]
    assert bench.ranking.run(*arguments, command=commands) == result
    assert len(commands.calls) == 1


def test_trial_looks_at_the_held_out_part_only(bench, tmp_path, ranks):
    commands = Commands()
    edits = ["train_config.num_epochs=2"]
    result = bench.ranking.run(
        bench.gowalla.DATASET, "mf", 1, tmp_path, edits=edits, command=commands
    )
    assert {part for _, part in ranks} == {"choose"}
    assert "test" not in result
    assert result["best"] == "model.ckpt-90"
    assert "final" not in " ".join(commands.calls[0])
    assert commands.calls[0].index(edits[0]) < commands.calls[0].index("train_config.seed=1")


def test_next_movie_run_tests_the_checkpoint_that_is_best_on_valid(bench, tmp_path, ranks):
    result = bench.ranking.run(bench.ml_1m_next.DATASET, "sasrec", 1, tmp_path, command=Commands())
    assert ranks[-1] == ("model.ckpt-90", "final")
    assert [name for name, part in ranks[:-1]] == [
        "model.ckpt-9",
        "model.ckpt-90",
        "model.ckpt-100",
    ]
    assert result["valid"]["hitrate@10"] == 0.3


def test_table_has_what_is_published_beside_mean_and_deviation(bench):
    tests = {1: (0.18, 0.15), 2: (0.19, 0.15)}
    results = {
        seed: {"test": dict(zip(("recall@20", "ndcg@20"), values, strict=True))}
        for seed, values in tests.items()
    }
    text = bench.ranking.table_of(bench.gowalla.DATASET, {"mf": results})
    assert "| MF-BPR | .1627 | .1378 | published |" in text
    assert text.splitlines()[-1].endswith("| .1850 ± .0071 | .1500 ± .0000 | 2 |")


@pytest.mark.parametrize("folder", ["gowalla", "ml_1m_next"])
def test_every_config_of_a_table_is_sound(bench, gowalla, folder, tmp_path):
    dataset = getattr(bench, folder).DATASET
    files = {path.stem for path in (FOLDER / "models" / folder).glob("*.config")}
    assert files - {"protocol"} == set(dataset.models)
    fields = bench.ranking.inputs(gowalla[0] / "data" / "choose")
    edits = [f"{key}={value}" for key, value in fields.items()]
    for name in dataset.models:
        path = tmp_path / f"{name}.config"
        path.write_text(bench.ranking.config_text(dataset, name))
        config = prepare(path, model_dir=str(tmp_path / "model"), edits=edits).config
        assert config.data_config.negative_sampler.num_sample > 0


def test_tiny_gowalla_through_the_commands(bench, gowalla):
    directory = gowalla[0]
    edits = ["train_config.num_epochs=2", "data_config.batch_size=64"]
    result = bench.ranking.run(bench.gowalla.DATASET, "mf", 1, directory, edits=edits)
    assert 0 < result["valid"]["recall@20"] <= 1
    written = json.loads(next(directory.glob("trials/*/seed1/result.json")).read_text())
    assert written["valid"] == result["valid"]
