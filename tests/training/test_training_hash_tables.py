"""Hash tables in whole runs: resume, growth, fresh rows, evaluation and export, two ranks."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hash_runs import (
    BATCH,
    DYNAMIC,
    ITEM,
    MAPS,
    ROWS,
    TABLES,
    USER,
    columns,
    maps,
    stored,
    train,
    weight_of,
    write,
)

from tzrec.deploy.options import Asked
from tzrec.deploy.predictor import Predictor
from tzrec.errors import CheckpointError, ConfigError
from tzrec.features.hash_table import HashTableSpec
from tzrec.main import evaluate, export
from tzrec.modules.hash_tables.id_map import EMPTY
from tzrec.training.checkpoint.find import read_results
from tzrec.training.hash_rows import TableRows

STEPS = ROWS // BATCH


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run over all rows."""
    root = tmp_path_factory.mktemp("whole")
    config = write(root)
    train(config, root / "run")
    return config, root / "run"


def test_the_maps_know_the_most_frequent_ids(whole):
    _, run = whole
    found = maps(stored(run))
    data = columns(ROWS, 0)
    assert int(found["user_emb", "steps"]) == STEPS
    # lfu: what came most often from the first step on is never lost.
    ids, counts = np.unique(data["user"][: BATCH * (STEPS - 1)], return_counts=True)
    best = ids[np.argsort(-counts)][:5].tolist()
    owners = found["user_emb", "ids"].tolist()
    for i in best:
        row = owners.index(i)
        # An odd step belongs to the next interval.
        assert int(found["user_emb", "counts"][row]) == counts[ids.tolist().index(i)]
    assert owners[-1] == EMPTY
    assert all(EMPTY not in found[table, "ids"][:-1] for table in TABLES)


def test_rows_of_the_history_and_of_the_item_are_the_same(whole):
    _, run = whole
    names = [name for name in stored(run) if name.endswith(".weight") and "_emb." in name]
    assert sorted(name.split(".")[-2] for name in names) == ["item_emb", "user_emb"]


@pytest.mark.parametrize("stop", [4, 6])
def test_a_resumed_run_is_the_same_bit_by_bit(whole, tmp_path, stop):
    """Step 4 lies within an interval of one table, 6 ends one of both."""
    config, run = whole
    train(config, tmp_path / "run", steps=stop)
    train(config, tmp_path / "run", continue_train=True)
    for part in ("model", "optimizer"):
        expected, found = stored(run, part), stored(tmp_path / "run", part)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(found[name], value), name


def test_evaluation_alone_gives_the_same(whole):
    _, run = whole
    metrics = evaluate(str(run / "pipeline.config"), report=False)
    for name in ("auc", "binary_cross_entropy"):
        assert metrics[name] == read_results(run)[-1][name]


def test_an_export_reads_its_own_map(whole, tmp_path):
    _, run = whole
    before = maps(stored(run))
    path = export(str(run / "pipeline.config"), str(tmp_path / "export"))
    predictor = Predictor.load(path)
    known = int(before["user_emb", "ids"][0])
    rows = {
        name: values[:3].to_pylist() if hasattr(values, "to_pylist") else values[:3].tolist()
        for name, values in columns(3, 7).items()
        if name != "clk"
    }

    def probs(*users):
        return predictor.predict({**rows, "user": list(users)})["probs"]

    one, two, three = (probs(*users) for users in ((known, 5, 6), (known, 6, 5), (5, known, 6)))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)


def test_growing_keeps_the_rows_of_all_ids(whole, tmp_path):
    _, run = whole
    grown = write(tmp_path, user="zch { zch_size: 50 eviction_interval: 5 lfu {} }")
    start = f"train_config.fine_tune_checkpoint={run}"
    with pytest.raises(CheckpointError, match="zch 30 → 50"):
        train(grown, tmp_path / "refused", steps=1, more=[start])
    still = "train_config.sparse_optimizer.rowwise_adagrad_optimizer.lr=0"
    remap = [start, "train_config.on_table_mismatch=REMAP", still]
    train(grown, tmp_path / "grown", steps=1, more=remap)
    old, new = stored(run), stored(tmp_path / "grown")
    before, after = maps(old), maps(new)
    for name, empty in (("ids", EMPTY), ("counts", 0)):
        values = after["user_emb", name]
        assert torch.equal(values[:29], before["user_emb", name][:29])
        assert (values[29:] == empty).all()
    kept = [*range(29), 49]
    assert torch.equal(weight_of(new, "user_emb")[kept], weight_of(old, "user_emb"))
    # The next step goes on with the counts of the old run.
    assert int(after["user_emb", "steps"]) == STEPS + 1
    smaller = write(tmp_path, user="zch { zch_size: 20 lfu {} }")
    with pytest.raises(CheckpointError, match="a hash table cannot shrink"):
        train(smaller, tmp_path / "smaller", steps=1, more=remap)
    reset = [start, "train_config.on_table_mismatch=RESET"]
    train(smaller, tmp_path / "reset", steps=1, more=reset)
    assert (maps(stored(tmp_path / "reset"))["user_emb", "ids"] == EMPTY).all()


FROZEN = f"trainable: false {USER}"


def test_a_frozen_table_keeps_map_and_rows(whole, tmp_path):
    _, run = whole
    config = write(tmp_path, user=FROZEN)
    with pytest.raises(ConfigError, match=r"'user_emb' is frozen .* and empty"):
        train(config, tmp_path / "empty", steps=1)
    start = f"train_config.fine_tune_checkpoint={run}"
    train(config, tmp_path / "run", steps=4, more=[start])
    before, after = stored(run), stored(tmp_path / "run")
    for name in MAPS:
        assert torch.equal(maps(after)["user_emb", name], maps(before)["user_emb", name]), name
    assert torch.equal(weight_of(after, "user_emb"), weight_of(before, "user_emb"))
    # The other table goes on.
    assert int(maps(after)["item_emb", "steps"]) == STEPS + 4
    assert not torch.equal(weight_of(after, "item_emb"), weight_of(before, "item_emb"))


def test_dynamicemb(tmp_path):
    config = write(tmp_path, user=DYNAMIC)
    train(config, tmp_path / "run")
    state = stored(tmp_path / "run")
    found = maps(state)
    # A row of this step's update is the only thing between the weights and their start.
    owners = found["user_emb", "ids"]
    assert (owners[:30] != EMPTY).all()
    assert (found["user_emb", "counts"][:30] >= 3).all()
    waiting = found["user_emb", "counter_ids"]
    assert (found["user_emb", "counter_counts"][waiting != EMPTY] >= 1).all()
    assert not set(waiting[waiting != EMPTY].tolist()) & set(owners.tolist())
    # Ids without a row are constants, whatever gradients said.
    weight = weight_of(state, "user_emb")
    assert torch.equal(weight[30:], torch.tensor([[0.0], [0.25]]).expand(2, 4))
    resumed = tmp_path / "resumed"
    train(config, resumed, steps=5)
    train(config, resumed, continue_train=True)
    for name, value in state.items():
        assert torch.equal(stored(resumed)[name], value), name
    export(str(tmp_path / "run" / "pipeline.config"), str(tmp_path / "export"))


def test_tables_that_cannot_be_shared(tmp_path):
    config = write(tmp_path)
    text = (tmp_path / "c.config").read_text()
    other = ITEM.replace("1.5", "2.5")
    (tmp_path / "c.config").write_text(text.replace(ITEM, other, 1))
    with pytest.raises(ConfigError, match="hash table"):
        train(config, tmp_path / "run")


def test_a_reset_table_forgets_what_came_before(tmp_path):
    """Step 4 is the first of an interval of the items: its ids wait in the checkpoint."""
    run = tmp_path / "run"
    train(write(tmp_path), run, steps=4)
    smaller = write(tmp_path, item=ITEM.replace("40", "30"))
    reset = ["train_config.on_table_mismatch=RESET"]
    train(smaller, run, steps=7, more=reset, continue_train=True)
    found = maps(stored(run))
    used = found["item_emb", "ids"] != EMPTY
    assert int(found["item_emb", "steps"]) == 3
    assert (found["item_emb", "last_steps"][used] <= 3).all()


def test_another_counter_capacity(tmp_path):
    run = tmp_path / "run"
    train(write(tmp_path, user=DYNAMIC), run, steps=4)
    other = write(tmp_path, user=DYNAMIC.replace("counter_capacity: 50", "counter_capacity: 70"))
    with pytest.raises(CheckpointError, match="shapes differ"):
        train(other, run, steps=5, continue_train=True)
    before = maps(stored(run))
    remap = ["train_config.on_table_mismatch=REMAP"]
    train(other, run, steps=5, more=remap, continue_train=True)
    after = maps(stored(run))
    assert len(after["user_emb", "counter_ids"]) == 70
    assert int(after["user_emb", "steps"]) == 5
    kept = before["user_emb", "ids"] == after["user_emb", "ids"]
    assert int(kept[before["user_emb", "ids"] != EMPTY].sum()) > 0


def test_fresh_rows_leave_random_states_alone(monkeypatch):
    """Seeding all devices would begin the dropout of a GPU anew at every change of a map."""
    rows = object.__new__(TableRows)
    spec = HashTableSpec("zch", 9, 1, 1, "lfu")
    rows._config = SimpleNamespace(
        hash_table=spec, init_fn=torch.nn.init.uniform_, num_embeddings=10, embedding_dim=4
    )
    rows._key = "t"
    before = torch.get_rng_state()
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("seeds all devices"))
    one, two, other = (rows._fresh(3, seed=1, step=step) for step in (5, 5, 6))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


INT8 = Asked(quantisation="INT8", sequence_quantisation="INT8")


@pytest.mark.parametrize("user", [USER, DYNAMIC])
def test_narrow_tables_of_an_export(tmp_path, user):
    config = write(tmp_path, user=user)
    train(config, tmp_path / "run", steps=6)
    pipeline = str(tmp_path / "run/pipeline.config")
    one = probs_of(export(pipeline, str(tmp_path / "exact")))
    other = probs_of(export(pipeline, str(tmp_path / "narrow"), asked=INT8))
    assert not np.array_equal(one, other)
    assert np.allclose(one, other, atol=0.02)


def probs_of(path):
    rows = {k: v[:50] for k, v in columns(50, 7).items() if k != "clk"}
    rows = {k: v.to_pylist() if hasattr(v, "to_pylist") else v.tolist() for k, v in rows.items()}
    return Predictor.load(path).predict(rows)["probs"]


@pytest.mark.slow
def test_a_compiled_export(whole, tmp_path):
    pipeline = str(whole[1] / "pipeline.config")
    one = probs_of(export(pipeline, str(tmp_path / "exact")))
    compiled = export(pipeline, str(tmp_path / "aoti"), asked=Asked(target="aoti"))
    assert np.allclose(probs_of(compiled), one, atol=1e-5)
