"""Two gloo ranks under torchrun, as a user starts them: same rows, same metrics, resumable."""

import math

import pytest
import torch
from rank_runs import torchrun, training
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.main import evaluate, train_and_evaluate
from tzrec.training.checkpoint.find import list_checkpoints, read_results
from tzrec.training.checkpoint.restore import read_data_position

pytestmark = pytest.mark.slow

ROWS, BATCH, STOP = 1000, 64, 3


def train(config, run, *flags, ranks=2, **edits):
    paths = {f"train_config.{name}": value for name, value in edits.items()}
    written = torchrun(*training(config, "--model_dir", run, *flags, edits=paths), ranks=ranks)
    assert "Traceback" not in written
    return written


def last(run):
    return list_checkpoints(run)[-1]


def weights(run):
    return _load_state_dict_from_keys(checkpoint_id=str(last(run) / "model"))


def rows_consumed(run):
    """Finished passes, and the rows of the one file that are consumed in this one."""
    stored = read_data_position(last(run))
    intervals = [rows for part in stored["position"]["sources"].values() for rows in part]
    return stored["epoch"], sum(end - start for start, end in intervals)


@pytest.fixture
def stopped(click_config, tmp_path):
    """A run on two ranks that was stopped in the first pass."""
    config, run = click_config(), tmp_path / "stopped"
    said = train(config, run, num_epochs=0, num_steps=STOP)
    # Rank 0 alone tells how it goes.
    assert said.count("Train and Evaluate Finished") == 1
    assert said.count("placement of the embedding tables\ntable ") == 1
    return config, run


def test_uneven_rows_end_together(click_config, tmp_path):
    """129, 128 and 128 rows: one rank has three batches, so the others make three of theirs."""
    config, run = click_config(num_rows=385), tmp_path / "run"
    both = "metrics { auc {} } metrics { accuracy {} }"
    config.write_text(config.read_text().replace("  metrics { auc {} }", both))
    train(config, run, ranks=3, num_epochs=1)
    assert last(run).name == "model.ckpt-2"
    assert rows_consumed(run) == (1, 0)
    # 500 rows are 167, 167 and 166.
    alone, together = evaluate(str(run / "pipeline.config")), read_results(run)[-1]
    for name in ("auc", "binary_cross_entropy"):
        assert alone[name] == pytest.approx(together[name], abs=1e-6), name
    # A count of rows.
    assert alone["accuracy"] == together["accuracy"]
    assert alone["accuracy"] * 500 == pytest.approx(round(alone["accuracy"] * 500), abs=1e-4)


def test_one_rank_takes_over(stopped):
    config, run = stopped
    # No row twice: the union of what both ranks consumed has all rows of their batches.
    consumed = STOP * BATCH * 2
    assert rows_consumed(run) == (0, consumed)
    in_training = read_results(run)[-1]
    alone = evaluate(str(run / "pipeline.config"))
    for name in ("auc", "binary_cross_entropy"):
        assert alone[name] == pytest.approx(in_training[name], abs=1e-6), name

    def go_on(**limits):
        edits = [f"train_config.{name}={value}" for name, value in limits.items()]
        train_and_evaluate(str(config), model_dir=str(run), continue_train=True, edits=edits)

    go_on(num_epochs=0, num_steps=STOP + 2)
    consumed += 2 * BATCH
    assert rows_consumed(run) == (0, consumed)
    go_on(num_epochs=1)
    assert rows_consumed(run) == (1, 0)
    steps = STOP + 2 + math.ceil((ROWS - consumed) / BATCH)
    assert last(run).name == f"model.ckpt-{steps - 1}"
    assert read_results(run)[-1]["auc"] > in_training["auc"]


def test_two_ranks_go_on_as_if_they_had_not_stopped(stopped, tmp_path):
    config, run = stopped
    train(config, run, "--continue_train", num_epochs=1)
    train(config, tmp_path / "whole", num_epochs=1)
    # 500 rows of each rank.
    assert last(run).name == last(tmp_path / "whole").name == "model.ckpt-7"
    assert rows_consumed(run) == (1, 0)
    expected, found = weights(tmp_path / "whole"), weights(run)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    results = read_results(run)[-1]
    assert results == read_results(tmp_path / "whole")[-1]
    assert evaluate(str(run / "pipeline.config"))["auc"] == pytest.approx(results["auc"], abs=1e-6)
