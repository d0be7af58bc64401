"""A base and the dumps of changed rows give the tables of the trainer, whatever happens to it."""

import logging
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from delta_runs import DUMP, apply, checkpoints, dumps, equal, keys

from tzrec.errors import CheckpointError
from tzrec.main import train_and_evaluate
from tzrec.protos.train_pb2 import DeltaEmbeddingDumpConfig
from tzrec.training.delta import hook as hook_module
from tzrec.training.delta.owner import DumpOwner

BATCH = 8
FAST = (
    f"data_config.batch_size={BATCH}",
    "train_config.num_epochs=0",
    "train_config.num_steps=13",
    "train_config.save_checkpoints_steps=4",
    "eval_input_path=",
)
EVERY_3 = f"{DUMP}.dump_interval_steps=3"


@pytest.fixture
def train(click_config, tmp_path):
    """Returns ``run(name, *edits, sparse=…) -> directory of the dumps``."""

    def run(name, *edits, sparse="adagrad_optimizer", **kwargs):
        config = click_config(sparse, shuffle=False, num_rows=300)
        train_and_evaluate(
            str(config), model_dir=str(tmp_path / name), edits=[*FAST, *edits], **kwargs
        )
        return tmp_path / name / "delta_embedding_dump"

    return run


def test_rows_of_the_steps_between_two_dumps(train, tmp_path):
    found = dumps(train("run", EVERY_3))
    assert list(found) == [3, 6, 9, 12]
    data = pq.read_table(tmp_path / "train.parquet").to_pydict()
    first = 0
    for step, rows in found.items():
        part = slice(first * BATCH, (step + 1) * BATCH)
        users, items = set(data["user_id"][part]), set(data["item_id"][part])
        tags = {int(tag) for text in data["tags"][part] for tag in text.split("\x03")}
        # Histories are cut to their first six steps.
        clicks = [text.split(";")[:6] for text in data["click__item_id"][part] if text]
        history = {int(item) for steps in clicks for item in steps}
        by_weight = {
            weight: {row["key_id"] for row in rows if row["table_fqn"] == weight}
            for weight in {row["table_fqn"] for row in rows}
        }
        expected = {
            ("ebc", "user_id_emb"): users,
            ("ebc", "item"): items,
            ("ebc", "tags_emb"): tags,
            ("ec_dict", "item"): items | history,
        }
        for (part_of_name, table), numbers in expected.items():
            (weight,) = [w for w in by_weight if part_of_name in w and w.split(".")[-2] == table]
            assert by_weight[weight] == numbers, (step, weight)
        assert len(by_weight) == len(expected)
        first = step + 1


def test_a_base_and_the_dumps_after_it_are_the_tables(train, tmp_path):
    found = dumps(train("run", f"{DUMP}.dump_interval_steps=2"))
    saved = checkpoints(tmp_path / "run")
    assert list(found) == [2, 4, 6, 8, 10, 12]
    assert list(saved) == [4, 8, 12]
    tables = saved[4]
    for step in (6, 8, 10, 12):
        before, tables = tables, apply(tables, found[step])
        assert not equal(before, tables)
        if step in saved:
            assert equal(tables, saved[step])


def test_columns(train):
    rows = dumps(train("run", EVERY_3))[6]
    assert {(r["global_step"], r["rank"], r["world_size"], r["source"]) for r in rows} == {
        (6, 0, 1, "plain")
    }
    named = {(r["table_fqn"].split(".")[-2], r["feature_name"]) for r in rows}
    assert named == {
        ("user_id_emb", "user_id"),
        ("tags_emb", "tags"),
        ("item", "item_id"),
        ("item", "item_id,click__item_id"),
    }
    assert {len(r["embedding"]) for r in rows} == {8}


def test_a_run_without_the_config_dumps_nothing(train):
    assert not train("run").exists()


@pytest.mark.parametrize(
    "edits",
    [
        ("train_config.gradient_accumulation_steps=5",),
        ("train_config.grad_scaler={ init_scale: 1e38 }", "train_config.mixed_precision=FP16"),
    ],
    ids=["accumulation", "overflows"],
)
def test_rows_are_dumped_when_they_have_moved(train, tmp_path, edits):
    """Gradients that wait, or are dropped, have moved nothing yet."""
    directory = train("run", f"{DUMP}.dump_interval_steps=1", *edits)
    found, saved = dumps(directory), checkpoints(tmp_path / "run")
    tables = saved[4]
    for step in range(5, 13):
        tables = apply(tables, found.get(step, []))
    assert equal(tables, saved[12])
    if "accumulation" in edits[0]:
        assert list(found) == [4, 9]
    else:
        assert 5 not in found


def test_a_rule_that_moves_all_rows_dumps_all_rows(train):
    edits = ("train_config.embedding_l2=0.1", "train_config.embedding_l2_all_rows=true")
    rows = dumps(train("run", f"{DUMP}.dump_interval_steps=6", *edits, sparse="adam_optimizer"))[6]
    users = [row["key_id"] for row in rows if "user_id" in row["table_fqn"]]
    assert users == list(range(40))


def test_frozen_tables_are_left_out(train):
    frozen = "feature_configs[0].id_feature.trainable=false"
    assert "user_id_emb" not in keys_of_tables(dumps(train("run", EVERY_3, frozen)))


def keys_of_tables(found):
    return {row["table_fqn"].split(".")[-2] for rows in found.values() for row in rows}


def test_a_run_that_goes_on_writes_what_the_whole_run_writes(train, tmp_path):
    """The checkpoint of step 4 knows the rows that have moved since the dump of step 3."""
    whole = dumps(train("run", EVERY_3))
    shutil.rmtree(tmp_path / "run/model.ckpt-8")
    shutil.rmtree(tmp_path / "run/model.ckpt-12")
    for step in (6, 9, 12):
        (tmp_path / f"run/delta_embedding_dump/delta_embedding_step_{step}.parquet").unlink()
    assert dumps(train("run", EVERY_3, continue_train=True)) == whole


def test_dumps_of_steps_that_a_run_takes_back(train, tmp_path, caplog):
    """Whoever has applied them already is right again after the next dump."""
    stale = dumps(train("run", EVERY_3))
    base = checkpoints(tmp_path / "run")[4]
    for step in (8, 12):
        shutil.rmtree(tmp_path / f"run/model.ckpt-{step}")
    other = ("train_config.num_steps=7", "train_config.seed=7")
    with caplog.at_level(logging.WARNING, "tzrec"):
        directory = train("run", EVERY_3, *other, continue_train=True)
    found = dumps(directory)
    assert list(found) == [3, 6]
    assert "the delta dump of step 12" in caplog.text
    consumer = base
    for rows in (stale[6], stale[9], stale[12], found[6]):
        consumer = apply(consumer, rows)
    assert equal(consumer, checkpoints(tmp_path / "run")[6])
    # Without the rows of the dumps that are gone it would not be so.
    only = [row for row in found[6] if row in stale[6]]
    assert len(only) < len(found[6])


def test_a_new_run_leaves_the_dumps_of_others_alone(train, tmp_path):
    one, other = tmp_path / "out", (f"{DUMP}.output_dir={tmp_path}/out",)
    train("one", EVERY_3, *other)
    before = {path.name: path.read_bytes() for path in one.iterdir()}
    with pytest.raises(
        CheckpointError, match=r"holds delta dumps of another run \(.*/one\): .*, steps 3 to 12"
    ):
        train("two", EVERY_3, *other)
    assert {path.name: path.read_bytes() for path in one.iterdir()} == before
    train("two", EVERY_3, *other, f"{DUMP}.file_prefix=two")
    assert {path.name: path.read_bytes() for path in one.glob("delta_*")} == before
    with pytest.raises(CheckpointError, match="pass --continue_train with its model_dir"):
        train("three", EVERY_3, *other, continue_train=True)
    assert {path.name: path.read_bytes() for path in one.glob("delta_*")} == before
    # Killed before its first checkpoint: it takes its own place.
    for checkpoint in (tmp_path / "one").glob("model.ckpt-*"):
        shutil.rmtree(checkpoint)
    train("one", EVERY_3, *other, "train_config.num_steps=4", continue_train=True)
    assert [path.name for path in one.glob("delta_*.parquet")] == ["delta_embedding_step_3.parquet"]


def test_a_run_that_goes_on_leaves_the_dumps_of_others_alone(train, tmp_path):
    """It has begun elsewhere; its checkpoint is of step 4, the dumps of the other go to 12."""
    one = tmp_path / "out"
    place = f"{DUMP}.output_dir={one}"
    train("one", EVERY_3, place)
    train("two", EVERY_3, "train_config.num_steps=5")
    before = {path.name: path.read_bytes() for path in one.iterdir()}
    with pytest.raises(CheckpointError, match=re.escape(f"another run ({tmp_path}/one)")) as caught:
        train("two", EVERY_3, place, continue_train=True)
    assert {path.name: path.read_bytes() for path in one.iterdir()} == before
    # A run that was moved says so.
    assert f"write its model_dir {tmp_path}/two into {one}/delta_embedding_run.txt" in (
        caught.value.hint
    )
    (one / "delta_embedding_run.txt").unlink()
    with pytest.raises(CheckpointError, match=r"dumps of an unknown run: .*, steps 3 to 12"):
        train("two", EVERY_3, place, continue_train=True)
    (one / "delta_embedding_run.txt").write_text(f"{tmp_path}/two")
    train("two", EVERY_3, place, "train_config.num_steps=8", continue_train=True)
    # 3 was there and is none of the steps that come.
    assert sorted(dumps(one)) == [3, 6, 7]


def test_of_two_runs_that_begin_at_once_one_is_refused(tmp_path):
    config = DeltaEmbeddingDumpConfig(output_dir=str(tmp_path / "out"))
    owners = [DumpOwner(config, tmp_path / name) for name in ("one", "two")]
    for owner in owners:
        owner.check(goes_on=False)
    owners[0].claim()
    with pytest.raises(CheckpointError, match=re.escape(f"another run ({tmp_path}/one)")):
        owners[1].claim()
    # Before a dump, and by another name of its model_dir.
    again = DumpOwner(config, tmp_path / "two/../one")
    again.check(goes_on=False)
    again.claim()
    owners[0].path.write_text("")
    with pytest.raises(CheckpointError, match="another run, which begins just now"):
        again.check(goes_on=True)


def test_a_file_in_the_place_of_the_directory(tmp_path):
    (tmp_path / "dumps").touch()
    config = DeltaEmbeddingDumpConfig(output_dir=str(tmp_path / "dumps"))
    with pytest.raises(CheckpointError, match=r"delta_embedding_run\.txt.* could not be written"):
        DumpOwner(config, tmp_path / "run").claim()


def test_minutes(train, monkeypatch):
    now = iter(range(0, 10_000, 25))
    monkeypatch.setattr(hook_module, "monotonic", lambda: next(now))
    found = dumps(train("run", f"{DUMP}.dump_interval_minutes=1"))
    # 25 s a look at the clock: 60 s are over at the third one after a dump's own two.
    assert list(found) == [2, 4, 6, 8, 10, 12]


def test_names_and_places(train, tmp_path):
    place = (f"{DUMP}.output_dir={tmp_path}/out", f"{DUMP}.file_prefix=rows")
    assert not train("run", EVERY_3, *place).exists()
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["rows_run.txt", *(f"rows_step_{step}.parquet" for step in (12, 3, 6, 9))]


def test_a_remote_directory(train, tmp_path):
    import fsspec

    url = f"memory:/{tmp_path}/dumps"
    train("run", EVERY_3, f"{DUMP}.output_dir={url}")
    system, inner = fsspec.core.url_to_fs(url)
    names = sorted(path.rpartition("/")[2] for path in system.ls(inner, False))
    steps = [f"delta_embedding_step_{step}.parquet" for step in (12, 3, 6, 9)]
    assert names == ["delta_embedding_run.txt", *steps]
    with system.open(f"{inner}/{names[1]}") as stream:
        assert pq.read_table(stream).num_rows


def test_int8(train, tmp_path):
    from tzrec.training.delta.quantise import dequantise

    int8 = train("int8", EVERY_3, f"{DUMP}.quant_type=DELTA_EMBEDDING_QUANT_INT8")
    exact = train("exact", EVERY_3)
    for path in exact.iterdir():
        one, other = pq.read_table(path), pq.read_table(int8 / path.name)
        assert one.drop(["embedding"]).equals(other.drop(["embedding"]))
        values = np.array(one["embedding"].to_pylist(), np.float32)
        assert np.abs(dequantise(other["embedding"]) - values).max() < 0.01
        assert {len(row) for row in other["embedding"].to_pylist()} == {4 + 8}


def test_a_file_appears_whole_or_not_at_all(train, tmp_path, monkeypatch):
    (tmp_path / "run/delta_embedding_dump").mkdir(parents=True)
    left = tmp_path / "run/delta_embedding_dump/.delta_embedding_step_9.parquet.partial"
    left.write_bytes(b"killed")

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_batch", full)
    with pytest.raises(CheckpointError, match=re.escape("step_3.parquet could not be written")):
        train("run", EVERY_3)
    assert list((tmp_path / "run/delta_embedding_dump").iterdir()) == []


def test_each_row_comes_once(train):
    found = dumps(train("run", EVERY_3))
    for rows in found.values():
        pairs = [(row["table_fqn"], row["key_id"]) for row in rows]
        assert len(set(pairs)) == len(pairs)
        assert keys([row for row in rows if "ebc" in row["table_fqn"]])
