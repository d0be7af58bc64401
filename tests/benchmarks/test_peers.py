"""The comparison with peers: its data, its clock, its table and our runner."""

import importlib
import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from tzrec.config import prepare
from tzrec.models.factory import create_model
from tzrec.training.build import build_features

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "peers"
NAMES = ("shapes", "measure", "venvs", "compare", "run_tzrec", "torchrec_models")


@pytest.fixture(scope="module")
def peers():
    """The modules of the comparison, which are scripts and no package."""
    sys.path.insert(0, str(FOLDER))
    found = {name: importlib.import_module(name) for name in NAMES}
    yield type("Peers", (), found)
    sys.path.remove(str(FOLDER))
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("vocabulary", [30_000, 400_000, 4_700_000])
def test_tables_add_up_to_the_vocabulary(peers, vocabulary):
    for make in (peers.shapes.criteo, peers.shapes.taobao):
        shape = make(vocabulary)
        assert abs(shape.vocabulary - vocabulary) <= 26
    assert len(peers.shapes.criteo(vocabulary).ids) == 26
    assert min(peers.shapes.criteo(vocabulary).ids.values()) == 100


@pytest.fixture(scope="module")
def sets(peers, tmp_path_factory):
    """A small set of each shape."""
    folder = tmp_path_factory.mktemp("sets")
    shapes = (peers.shapes.criteo(30_000), peers.shapes.taobao(30_000))
    return {shape.name: peers.shapes.make(folder, shape, 4000, seed=1) for shape in shapes}


def test_ids_fit_their_tables_and_parts_have_their_rows(peers, sets):
    for name, folder in sets.items():
        shape = peers.shapes.load(folder)
        for part, rows in (("train", 4000), ("test", 1000)):
            table = pq.read_table(folder / f"{part}.parquet")
            assert table.num_rows == rows
            assert set(table.column_names) == {
                *shape.labels, *shape.floats, *shape.ids, *shape.steps
            }  # fmt: skip
            for column, size in shape.ids.items():
                ids = table.column(column).to_numpy()
                # 0 is kept for padding where there are sequences.
                assert ids.min() >= (0 if name == "criteo" else 1)
                assert ids.max() < size


def test_a_set_is_made_once_and_its_seed_decides_it(peers, sets, tmp_path):
    shape = peers.shapes.load(sets["taobao"])
    again = peers.shapes.make(tmp_path, shape, 4000, seed=1)
    other = peers.shapes.make(tmp_path / "other", shape, 4000, seed=2)
    tables = [pq.read_table(path / "train.parquet") for path in (sets["taobao"], again, other)]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])
    before = (again / "train.parquet").stat().st_mtime_ns
    assert peers.shapes.make(tmp_path, shape, 4000, seed=1) == again
    assert (again / "train.parquet").stat().st_mtime_ns == before


def test_an_ad_decides_its_category_and_histories_follow(peers, sets):
    table = pq.read_table(sets["taobao"] / "train.parquet")
    of_ad = dict(
        zip(
            table.column("adgroup_id").to_pylist(), table.column("cate_id").to_pylist(), strict=True
        )
    )
    steps = zip(
        table.column("click_50_seq__adgroup_id").to_pylist(),
        table.column("click_50_seq__cate_id").to_pylist(),
        strict=True,
    )
    seen = 0
    for ads, categories in steps:
        assert 1 <= len(ads) == len(categories) <= 50
        for ad, category in zip(ads, categories, strict=True):
            if ad in of_ad:
                seen += 1
                assert of_ad[ad] == category
    assert seen > 1000


def test_sequences_are_padded_behind(peers, sets):
    shape = peers.shapes.load(sets["taobao"])
    arrays = peers.shapes.read(sets["taobao"] / "test.parquet", shape, sequences=True)
    lists = pq.read_table(sets["taobao"] / "test.parquet").column("click_50_seq__brand").to_pylist()
    expected = np.array([row + [0] * (50 - len(row)) for row in lists])
    np.testing.assert_array_equal(arrays["click_50_seq__brand"], expected)
    np.testing.assert_array_equal(arrays["seq_length"], [len(row) for row in lists])
    assert "seq_length" not in peers.shapes.read(sets["taobao"] / "test.parquet", shape)


def test_auc_is_that_of_sklearn(peers):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 5000)
    for scores in (rng.random(5000), rng.integers(0, 7, 5000) / 7):
        assert peers.measure.auc(labels, scores) == pytest.approx(
            roc_auc_score(labels, scores), abs=1e-12
        )
    with pytest.raises(ValueError, match="both classes"):
        peers.measure.auc(np.ones(3), np.arange(3.0))
    with pytest.raises(ValueError, match="not finite"):
        peers.measure.auc(np.array([0, 1]), np.array([0.1, np.nan]))


def test_the_meter_adds_cpu_time_by_phase(peers):
    meter = peers.measure.Meter()
    for _ in range(2):
        with meter.phase("train"):
            end = peers.measure.cpu_seconds() + 0.1
            while peers.measure.cpu_seconds() < end:
                pass
    assert 0.2 <= meter.phases["train"]["cpu"] < 0.4
    meter.add("train", -0.1, -0.1)
    assert 0.1 <= meter.phases["train"]["cpu"] < 0.3


KINDS = ("Adagrad", "BF16, row-wise")
MODELS = ["deepfm", "dcn_v2", "dlrm", "mmoe", "din"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("setting", ["adam-FP32", "adagrad-BF16"])
def test_our_config_says_what_all_systems_train(peers, sets, tmp_path, model, setting):
    folder = set_of(sets, model)
    shape = peers.shapes.load(folder)
    job = peers.measure.Job(folder, model, setting, 4096, tmp_path)
    path = tmp_path / "run.config"
    path.write_text(peers.run_tzrec.config_text(job, shape, tmp_path / "model"))
    config = prepare(str(path)).config
    optimizer, precision = setting.split("-")
    assert config.train_config.sparse_optimizer.WhichOneof("optimizer") == f"{optimizer}_optimizer"
    assert config.train_config.mixed_precision == precision
    tables = {f.id_feature.feature_name: f.id_feature for f in config.feature_configs}
    for name, size in shape.ids.items():
        assert (tables[name].num_buckets, tables[name].embedding_dim) == (size, 16)


def set_of(sets, model):
    return sets["taobao" if model in ("mmoe", "din") else "criteo"]


class Runs:
    """Stands for the systems: each costs what it is told."""

    def __init__(self, costs):
        self.costs, self.calls = costs, []

    def __call__(self, system, case, folder, scratch):
        self.calls.append((system, case))
        cost = self.costs[system.runner]
        if cost is None:
            return {"error": "exit code 1: boom"}
        phases = {"train": {"wall": 2.0, "cpu": cost * case.rows / 1e6}}
        return {"rows": case.rows, "phases": phases, "peak_mib": 1234.5, "auc": {"label": 0.75}}


def test_the_table_has_ratios_and_a_failure_is_shown(peers, tmp_path, monkeypatch, capsys):
    compare = peers.compare
    runs = Runs({"run_tzrec.py": 20.0, "run_deepctr.py": 90.0, "run_fuxictr.py": None})
    monkeypatch.setattr(compare, "run", runs)
    monkeypatch.setattr(compare, "CASES", (compare.Case("deepfm", 30_000, 4000),))
    systems = ["tzrec", "DeepCTR-Torch", "FuxiCTR"]
    monkeypatch.setattr(sys, "argv", ["compare", "--dir", str(tmp_path), "--systems", *systems])
    assert compare.main() == 1
    lines = capsys.readouterr().out.splitlines()[2:]
    start = "| deepfm | 0.03 M | 0.004 M | 1 |"
    assert lines == [
        f"{start} tzrec | 20.0 | 1.0 | 50,000 | 2,000 | 1,234 | .7500 |",
        f"{start} DeepCTR-Torch | 90.0 | 4.5 | 11,111 | 2,000 | 1,234 | .7500 |",
        f"{start} FuxiCTR | failed: exit code 1: boom |  |  |  |  |  |",
    ]
    # What failed is run again, what was measured is not.
    runs.costs["run_fuxictr.py"] = 40.0
    assert compare.main() == 0
    assert [system.runner for system, _ in runs.calls[3:]] == ["run_fuxictr.py"]
    assert "| FuxiCTR | 40.0 | 2.0 |" in capsys.readouterr().out


def test_of_several_runs_the_cheapest_counts(peers, tmp_path, monkeypatch, capsys):
    costs = iter((30.0, None, 20.0, 25.0))

    def run(system, case, folder, scratch):
        return Runs({system.runner: next(costs)})(system, case, folder, scratch)

    monkeypatch.setattr(peers.compare, "run", run)
    monkeypatch.setattr(peers.compare, "CASES", (peers.compare.Case("deepfm", 30_000, 4000),))
    wanted = ["--dir", str(tmp_path), "--systems", "tzrec", "--repeat"]
    monkeypatch.setattr(sys, "argv", ["compare", *wanted, "2"])
    assert peers.compare.main() == 1
    assert "failed: exit code 1: boom" in capsys.readouterr().out
    assert peers.compare.main() == 0
    assert "| tzrec | 20.0 |" in capsys.readouterr().out


def test_systems_run_only_where_they_have_the_model_and_the_threads(
    peers, tmp_path, monkeypatch, capsys
):
    compare = peers.compare
    runs = Runs(dict.fromkeys((system.runner for system in compare.SYSTEMS.values()), 10.0))
    cases = tuple(compare.Case(m, 30_000, 4000, n) for m in ("dlrm", "deepfm") for n in (1, 2))
    monkeypatch.setattr(compare, "run", runs)
    monkeypatch.setattr(compare, "CASES", cases)
    monkeypatch.setattr(sys, "argv", ["compare", "--dir", str(tmp_path)])
    assert compare.main() == 0
    seen = {c: {system.runner for system, case in runs.calls if case == c} for c in cases}
    ours = {"run_tzrec.py", "run_torchrec.py"}
    others = {"run_deepctr.py", "run_rechub.py"}
    fuxi = {"run_fuxictr.py"}
    assert [seen[case] for case in cases] == [ours | fuxi, ours, ours | others | fuxi, ours]
    capsys.readouterr()
    show = ["compare", "--dir", str(tmp_path), "--show", "--threads", "2"]
    monkeypatch.setattr(sys, "argv", show)
    assert compare.main() == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert {line.split(" | ")[3] for line in lines} == {"2"}
    assert len(lines) == 2 * 8


def test_a_missing_environment_says_how_to_make_it(peers, tmp_path, monkeypatch):
    monkeypatch.setattr(peers.venvs, "root", lambda: tmp_path)
    with pytest.raises(SystemExit, match=r"venvs\.py fuxictr"):
        peers.venvs.python("fuxictr")
    assert peers.venvs.python("") == Path(sys.executable)


def test_a_runner_that_fails_gives_its_last_line(peers, sets, tmp_path):
    system = peers.compare.System("run_tzrec.py", setting="nonsense")
    case = peers.compare.Case("deepfm", 30_000, 4000)
    result = peers.compare.run(system, case, sets["criteo"], tmp_path)
    assert result["error"].startswith("exit code 1: ValueError: ")


def test_requirements_are_pinned(peers):
    for name in peers.venvs.PEERS.values():
        lines = [line for line in (FOLDER / name).read_text().splitlines() if line[0] != "#"]
        assert lines
        for line in lines:
            assert line.count("==") == 1, line


def test_the_stand_in_takes_nothing_of_ours():
    for name in ("run_torchrec.py", "torchrec_models.py", "measure.py", "shapes.py"):
        source = (FOLDER / name).read_text()
        assert not re.search(r"^\s*(import|from) (tzrec|run_tzrec)", source, re.MULTILINE), name


@pytest.mark.parametrize("model", MODELS)
def test_the_stand_in_has_our_layers_and_tables(peers, sets, tmp_path, model):
    folder = set_of(sets, model)
    shape = peers.shapes.load(folder)
    job = peers.measure.Job(folder, model, "adam-FP32", 4096, tmp_path)
    path = tmp_path / "run.config"
    path.write_text(peers.run_tzrec.config_text(job, shape, tmp_path / "model"))
    config = prepare(str(path)).config
    labels = list(config.data_config.label_fields)
    features = build_features(config.data_config, config.feature_configs)
    ours = matrices(create_model(config.model_config, features, labels))
    theirs = matrices(peers.torchrec_models.Task(model, shape, len(labels), "FP32"))
    if model == "din":
        # A table of ids and histories is one of theirs and two of ours: pooled, and of steps.
        ours.subtract((16, shape.ids[of]) for of in shape.steps.values())
    assert theirs == ours


def matrices(model):
    """The shapes of all matrices; each MLP's and each table's are among them."""
    return Counter(tuple(sorted(p.shape)) for p in model.parameters() if p.dim() == 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model"),
    [("tzrec", "deepfm"), *((f"TorchRec, {kind}", m) for m in MODELS for kind in KINDS)],
)
def test_runners_train_and_test(peers, sets, tmp_path, monkeypatch, name, model):
    monkeypatch.setattr(peers.compare, "BATCH_SIZE", 512)
    case = peers.compare.Case(model, 30_000, 4000)
    result = peers.compare.run(peers.compare.SYSTEMS[name], case, set_of(sets, model), tmp_path)
    assert "error" not in result, json.dumps(result)
    # All rows but those of the first step.
    assert result["rows"] == 4000 - 512
    assert set(result["auc"]) == {"mmoe": {"clk", "buy"}, "din": {"clk"}}.get(model, {"label"})
    assert all(0.3 < score < 1 for score in result["auc"].values())
    assert result["phases"]["train"]["cpu"] > 0
