"""Columns that cannot teach anything are told; rows with wrong labels are named."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_training_trainer import _trainer

from tzrec.batch import BASE_DATA_GROUP, Batch, JaggedTensor, KeyedJaggedTensor, KeyedTensor
from tzrec.errors import DataError
from tzrec.main import train_and_evaluate
from tzrec.training.hooks.base import StepResult
from tzrec.training.hooks.constant_columns import ConstantColumns
from tzrec.training.hooks.progress import ProgressHook
from tzrec.training.summary import final_summary

ONE_PASS = ["train_config.num_epochs=1"]


class _Trainer:
    class state:
        step = 0


def look(*batches, num_rows=4, hook=None):
    """Shows a hook some batches; returns it."""
    hook = hook or ConstantColumns()
    for batch in batches:
        _Trainer.state.step += 1
        hook.after_step(_Trainer, StepResult(torch.zeros(()), {}, {}, batch, num_rows))
    return hook


def findings(*batches):
    return look(*batches).findings()


def dense(*values):
    kt = KeyedTensor(["price"], [1], torch.tensor(values)[:, None])
    return Batch(dense_features={BASE_DATA_GROUP: kt})


def sparse(ids, lengths):
    kjt = KeyedJaggedTensor(["user"], torch.tensor(ids), lengths=torch.tensor(lengths))
    return Batch(sparse_features={BASE_DATA_GROUP: kjt})


def sequence(values, lengths):
    jt = JaggedTensor(torch.tensor(values)[:, None], lengths=torch.tensor(lengths))
    return Batch(sequence_dense_features={"click": jt})


def labels(*values):
    return Batch(labels={"clk": torch.tensor(values)})


def weights(*values):
    return Batch(sample_weights={"w": torch.tensor(values)})


CONSTANT = {
    "label 'clk' is 1 in all 8 rows: there is nothing to tell apart": [
        labels(1, 1, 1, 1),
        labels(1, 1, 1, 1),
    ],
    "feature 'price' is 2.5 in all 8 rows": [dense(2.5, 2.5, 2.5, 2.5)] * 2,
    "feature 'user' is 7 in all 8 rows": [sparse([7] * 4, [1] * 4)] * 2,
    "feature 'user' is missing in all 4 rows": [
        sparse(torch.zeros(0, dtype=torch.int64).tolist(), [0] * 4)
    ],
    "feature 'click' is missing in all 4 rows": [sequence([], [0] * 4)],
    "sample weight 'w' is 0 in all 4 rows: none of them counts": [weights(0.0, 0.0, 0.0, 0.0)],
}


@pytest.mark.parametrize("sentence", CONSTANT)
def test_what_never_changes_is_told(sentence):
    assert findings(*CONSTANT[sentence]) == [sentence]


@pytest.mark.parametrize(
    "batches",
    [
        [labels(1, 1, 1, 0)],
        [labels(1, 1, 1, 1), labels(0, 0, 0, 0)],
        [dense(1.0, 1.0, 1.0, 2.0)],
        [sparse([7, 8], [1, 1])],
        # The same id, but not in every row.
        [sparse([7, 7], [1, 1, 0])],
        [sparse([7, 7], [1, 1]), sparse([], [0, 0])],
        [sequence([1.0], [0, 1])],
        [weights(1.0, 1.0)],
        [weights(0.0, 0.0), weights(0.0, 1.0)],
    ],
)
def test_what_changes_is_not(batches):
    assert findings(*batches) == []


def test_labels_that_nothing_learns_from_may_be_alike():
    batch = labels(1, 1, 1, 1)
    batch.sparse_features = sparse([7] * 4, [1] * 4).sparse_features
    hook = look(batch, batch, hook=ConstantColumns(labels=False))
    assert hook.findings() == ["feature 'user' is 7 in all 8 rows"]


def test_it_is_told_once_after_enough_rows_or_at_the_end(caplog):
    hook = look(dense(1.0), num_rows=9_999)
    assert caplog.records == []
    look(dense(1.0), num_rows=1, hook=hook)
    look(*[dense(1.0)] * 20, hook=hook)
    hook.on_train_end(None)
    assert [r.message for r in caplog.records] == ["feature 'price' is 1 in all 10,000 rows"]
    short = look(dense(1.0))
    short.on_train_end(None)
    assert caplog.records[-1].message == "feature 'price' is 1 in all 4 rows"


def test_a_late_change_is_seen():
    """Less often than before, but it is."""
    hook = look(dense(1.0), num_rows=10_000)
    # One of these is looked at.
    look(*[dense(1.0)] * 16, num_rows=10, hook=hook)
    assert hook.findings() == ["feature 'price' is 1 in all 10,010 rows looked at"]
    assert look(*[dense(2.0)] * 16, hook=hook).findings() == []


def test_no_batch_is_looked_at_when_nothing_is_suspect(monkeypatch):
    hook = look(dense(1.0, 2.0))
    monkeypatch.setattr(hook, "_look", None)
    look(dense(1.0, 1.0), hook=hook)


def test_the_summary_says_what_came_of_the_run_and_how_to_go_on():
    progress = ProgressHook(1, bar=False)
    trainer = _trainer([progress], num_epochs=2)
    trainer.fit()
    timer = trainer.timer
    timer.seconds = dict.fromkeys(timer.seconds, 0.0) | {"data": 1.0, "forward": 3.0, "saving": 6}
    notes = ["3 bad rows", "label 'clk' is 1"]
    lines = final_summary(
        trainer, progress, metrics={}, model_dir="runs/a", best="model.ckpt-3", notes=notes
    ).splitlines()
    assert "  steps         6 (2 passes)" in lines
    assert "  time          4.0 s training, 6.0 s saving, 0.0 s evaluation" in lines
    assert "                data 25% forward 75% backward 0% update 0% metrics 0% other 0%" in lines
    # Two rows in each of six steps.
    assert "  speed         3 rows/s" in lines
    assert "  note          3 bad rows" in lines
    assert "                label 'clk' is 1" in lines
    assert "  best          model.ckpt-3" in lines
    more = "tzrec train runs/a/pipeline.config --continue --set train_config.num_epochs=3"
    assert lines[-1] == f"  go on         {more}"

    def last(**limits):
        short = _trainer([progress], **limits)
        short.fit()
        return final_summary(short, progress, metrics={}, model_dir="runs/a").splitlines()[-1]

    assert last(num_steps=2).endswith("--set train_config.num_steps=4")


def test_the_last_loss_is_that_of_the_last_step():
    """Also where no line was due for it; rows are (value, 1), the loss is mean(x w)."""
    progress = ProgressHook(100, bar=False)
    _trainer([progress], num_epochs=1).fit()
    assert progress.last_losses["total_loss"] == pytest.approx((1 - 0.1 * (1.0 + 1.5)) * 2.0)


def change(tmp_path, name, values):
    table = pq.read_table(tmp_path / "train.parquet")
    column = pa.array(values, table[name].type)
    table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=300)


def test_a_run_tells_them_in_its_summary(click_config, tmp_path, caplog):
    caplog.set_level("INFO", logger="tzrec")
    config = click_config()
    change(tmp_path, "clk", [1] * 1000)
    change(tmp_path, "user_id", [3] * 1000)
    change(tmp_path, "price", [0.5] * 1000)
    train_and_evaluate(str(config), edits=ONE_PASS)
    told = [
        "label 'clk' is 1 in all 1,000 rows: there is nothing to tell apart",
        "feature 'price' is 0.5 in all 1,000 rows",
        "feature 'user_id' is 3 in all 1,000 rows",
    ]
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == told
    for sentence in told:
        assert sentence in caplog.records[-2].message


@pytest.mark.parametrize(("every", "waiting"), [(3, 1), (6, 4), (4, 0)])
def test_batches_that_wait_for_an_update_are_told(click_config, caplog, every, waiting):
    """Of the 16 batches of a pass."""
    caplog.set_level("INFO", logger="tzrec")
    edits = [*ONE_PASS, f"train_config.gradient_accumulation_steps={every}"]
    train_and_evaluate(str(click_config()), edits=edits)
    told = f"that have not moved the weights: {waiting}; an update takes {every} "
    assert (told in caplog.records[-2].message) == bool(waiting)
    assert ("have not moved" in caplog.text) == bool(waiting)


def test_a_label_out_of_range_names_file_and_row(click_config, tmp_path):
    """The batches are shuffled, and still it is the row of the file."""
    config = click_config()
    values = np.zeros(1000, dtype=np.int64)
    values[437] = 2
    change(tmp_path, "clk", values)
    with pytest.raises(DataError) as caught:
        train_and_evaluate(str(config), edits=ONE_PASS)
    assert str(caught.value).startswith(
        f"{tmp_path}/train.parquet: row 437 (counted from 0): label 'clk' is 2 in row "
    )
