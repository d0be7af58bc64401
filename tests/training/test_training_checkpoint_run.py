"""Checkpoints through the public functions: continued, fine-tuned, other programs', best."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.cli import main
from tzrec.errors import CheckpointError, ConfigError
from tzrec.main import evaluate, train_and_evaluate
from tzrec.training.checkpoint.find import list_checkpoints, read_results
from tzrec.training.checkpoint.restore import read_data_position, read_trainer_state

GROUP = "model.embedding_group.emb_impls.__BASE__.ebc.embedding_bags"
USER = f"{GROUP}.user_id_emb.weight"
STOPPED = ["train_config.num_epochs=0", "train_config.num_steps=4"]
LONGER = ["train_config.num_epochs=0", "train_config.num_steps=6"]
FROZEN = [
    "train_config.sparse_optimizer.adagrad_optimizer.lr=0",
    "train_config.dense_optimizer.adam_optimizer.lr=0",
]


@pytest.fixture
def trained(click_config, tmp_path):
    """A config and a run of it that was stopped after four steps."""
    config = str(click_config())
    train_and_evaluate(config, model_dir=str(tmp_path / "run"), edits=STOPPED)
    return config, tmp_path / "run"


def _weights(checkpoint, part="model"):
    return flatten_state_dict(_load_state_dict_from_keys(checkpoint_id=str(checkpoint / part)))[0]


def _go_on(config, run, *edits):
    train_and_evaluate(config, model_dir=str(run), continue_train=True, edits=[*LONGER, *edits])


class TestOnMismatch:
    GROWN = "feature_configs[0].id_feature.num_buckets=45"

    def test_strict_refuses_before_a_step(self, trained):
        config, run = trained
        with pytest.raises(CheckpointError, match="num_buckets 40 → 45"):
            _go_on(config, run, self.GROWN)
        assert len(list_checkpoints(run)) == 1

    def test_the_flag_of_the_command_line(self, trained, capsys):
        config, run = trained
        command = ["train", config, "--model_dir", str(run), "--continue_train"]
        for edit in [*LONGER, *FROZEN, self.GROWN]:
            command += ["--set", edit]
        assert main([*command, "--on_mismatch", "strict"]) == 4
        assert "num_buckets 40 → 45" in capsys.readouterr().err
        assert main([*command, "--on_mismatch", "remap"]) == 0
        before, after = (_weights(path)[USER] for path in list_checkpoints(run))
        assert after.shape == (45, 8)
        assert torch.equal(after[:40], before)
        # The run goes on with the table that it has now.
        assert "45" in (list_checkpoints(run)[-1] / "manifest.json").read_text()

    def test_reset_keeps_the_other_tables(self, trained):
        config, run = trained
        _go_on(config, run, self.GROWN, "train_config.on_table_mismatch=RESET", *FROZEN)
        before, after = (_weights(path) for path in list_checkpoints(run))
        assert not torch.equal(after[USER][:40], before[USER])
        for key in before:
            assert key == USER or torch.equal(before[key], after[key]), key
        # The optimizer's state too: users of the first four batches only have no sums any more.
        state = f"state.{USER}.user_id_emb.momentum1"
        before, after = (_weights(path, "optimizer")[state] for path in list_checkpoints(run))
        unseen = (after[:40] == 0).all(dim=1)
        assert (before[unseen] > 0).all(dim=1).any()

    def test_an_evaluation_refuses_it_too(self, trained):
        _, run = trained
        with pytest.raises(CheckpointError, match="num_buckets 40 → 45"):
            evaluate(str(run / "pipeline.config"), edits=[self.GROWN])


class TestFineTuning:
    def _tune(self, config, run, new, *edits, **flags):
        train_and_evaluate(
            config,
            model_dir=str(new),
            fine_tune_checkpoint=str(run),
            edits=["train_config.num_epochs=0", "train_config.num_steps=1", *FROZEN, *edits],
            **flags,
        )
        return list_checkpoints(new)[-1]

    def test_a_table_comes_from_another_name(self, trained, tmp_path, caplog):
        caplog.set_level(logging.INFO, logger="tzrec")
        config, run = trained
        (tmp_path / "map").write_text(f"{GROUP}.who.weight {USER}\n")
        renamed = "feature_configs[0].id_feature.embedding_name=who"
        mapped = f"train_config.fine_tune_ckpt_param_map={tmp_path / 'map'}"
        tuned = self._tune(config, run, tmp_path / "new", renamed, mapped)
        old = _weights(list_checkpoints(run)[-1])
        assert torch.equal(_weights(tuned)[f"{GROUP}.who.weight"], old[USER])
        assert f"{GROUP}.who.weight from {USER}" in caplog.text
        # Without the map the table has no values to take.
        caplog.clear()
        tuned = self._tune(config, run, tmp_path / "without", renamed)
        assert not torch.equal(_weights(tuned)[f"{GROUP}.who.weight"], old[USER])
        lines = [line.split() for line in caplog.text.splitlines()]
        assert ["missing", "1"] in [line[:2] for line in lines]
        assert ["unexpected", "1"] in [line[:2] for line in lines]

    def test_a_map_that_does_not_exist(self, trained, tmp_path):
        config, run = trained
        mapped = "train_config.fine_tune_ckpt_param_map=/nowhere"
        with pytest.raises(ConfigError, match="'/nowhere' does not exist"):
            self._tune(config, run, tmp_path / "new", mapped)

    def test_the_run_starts_anew_with_the_weights(self, trained, tmp_path):
        config, run = trained
        tuned = self._tune(config, run, tmp_path / "new")
        assert tuned.name == "model.ckpt-0"
        old, new = _weights(list_checkpoints(run)[-1]), _weights(tuned)
        assert all(torch.equal(value, new[key]) for key, value in old.items())
        assert read_data_position(tuned)["position"]["num_batches"] == 1
        (schedule, *_) = read_trainer_state(tuned)["schedulers"]
        assert schedule["t"] == 1

    def test_the_optimizer_can_be_left_out(self, trained, tmp_path):
        config, run = trained
        key = "state.model.output_mlp.weight.step"
        stored = _weights(list_checkpoints(run)[-1], "optimizer")[key]
        kept = self._tune(config, run, tmp_path / "a")
        fresh = self._tune(config, run, tmp_path / "b", ignore_restore_optimizer=True)
        assert _weights(kept, "optimizer")[key] == stored + 1
        assert _weights(fresh, "optimizer")[key] == 1

    def test_with_continue_train_the_rows_go_on(self, trained, tmp_path):
        config, run = trained
        old = read_data_position(list_checkpoints(run)[-1])
        tuned = self._tune(config, run, tmp_path / "new", continue_train=True)
        new = read_data_position(tuned)
        assert old["position"]["num_batches"] == 4
        assert new["position"]["num_batches"] == 5
        assert new["epoch"] == 0

    def test_the_own_checkpoint_wins(self, trained, tmp_path):
        config, run = trained
        own = tmp_path / "own"
        train_and_evaluate(config, model_dir=str(own), edits=[*STOPPED, *FROZEN])
        before = _weights(list_checkpoints(own)[-1])
        train_and_evaluate(
            config,
            model_dir=str(own),
            continue_train=True,
            fine_tune_checkpoint=str(run),
            edits=[*LONGER, *FROZEN],
        )
        after = _weights(list_checkpoints(own)[-1])
        assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_run_of_another_program_goes_on(trained, caplog):
    config, run = trained
    path = list_checkpoints(run)[-1]
    for name in ("manifest.json", "trainer_state.pt"):
        (path / name).unlink()
    position = {"__epochs_completed__": 1, "__data_ts_watermark__": 12}
    (path / "dataloader_state.json").write_text(json.dumps(position))
    _go_on(config, run)
    last = list_checkpoints(run)[-1]
    assert last.name == "model.ckpt-5"
    assert "was not written by this program" in caplog.text
    state = read_trainer_state(last)
    assert (state["state"]["step"], state["state"]["epoch"]) == (6, 1)
    # Schedules are where they would be, not at their start.
    assert {schedule["t"] for schedule in state["schedulers"]} == {6}
    key = "state.model.output_mlp.weight.step"
    assert _weights(last, "optimizer")[key] == 6


def test_the_plan_says_where_tables_live(trained):
    _, run = trained
    plan = json.loads((list_checkpoints(run)[-1] / "plan").read_text())
    assert plan["model.embedding_group.emb_impls.__BASE__.ebc"]["user_id_emb"] == {
        "sharding_type": "table_wise",
        "compute_kernel": "fused",
        "ranks": [0],
    }


def test_another_sparse_optimizer_starts_afresh(trained, caplog):
    """Adagrad's sums of squares and adam's mean gradients are both called momentum1."""
    config, run = trained
    adam = Path(config).read_text().replace("adagrad_optimizer", "adam_optimizer")
    (run.parent / "adam.config").write_text(adam)
    _go_on(str(run.parent / "adam.config"), run)
    assert "trained by adagrad_optimizer and now by adam_optimizer" in caplog.text
    states = _weights(list_checkpoints(run)[-1], "optimizer")
    assert states[f"state.{USER}.user_id_emb.step"] == 2
    assert states[f"state.{USER}.user_id_emb.momentum1"].min() < 0


def test_only_damaged_checkpoints(trained, caplog):
    config, run = trained
    (path,) = list_checkpoints(run)
    (path / "model" / "__0_0.distcp").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"already holds model\.ckpt-3"):
        train_and_evaluate(config, model_dir=str(run), edits=STOPPED)
    _go_on(config, run)
    assert "passing over" in caplog.text
    assert "has 0 bytes instead of" in caplog.text
    assert list_checkpoints(run)[-1].name == "model.ckpt-5"


@pytest.mark.parametrize("which", ["best", "latest", "path"])
def test_eval_of_a_checkpoint(click_config, tmp_path, which):
    config, run = str(click_config()), tmp_path / "run"
    worst = [
        "export_config.best_exporter_metric=auc",
        "export_config.metric_larger_is_better=false",
    ]
    train_and_evaluate(config, model_dir=str(run), edits=["train_config.num_epochs=1", *worst])
    rows = read_results(run)
    lowest = min(rows, key=lambda row: row["auc"])
    assert lowest != rows[-1]
    path = run / f"model.ckpt-{int(lowest['global_step'])}"
    wanted = {"best": lowest, "latest": rows[-1], "path": lowest}[which]
    name = {"path": str(path)}.get(which, which)
    assert main(["eval", str(run / "pipeline.config"), "--checkpoint", name]) == 0
    result = json.loads((run / "eval_result.txt").read_text())
    assert result["auc"] == pytest.approx(wanted["auc"])
    # As in the interface, a checkpoint that was named by its path has no step.
    assert result["global_step"] == (None if which == "path" else wanted["global_step"])


def test_a_vanished_run_ends_with_an_error(click_config, tmp_path, monkeypatch):
    from tzrec.training.hooks.base import Hook
    from tzrec.training.hooks.progress import ProgressHook

    run = tmp_path / "run"

    def vanish(self, trainer, result):
        if trainer.state.step == 3:
            shutil.rmtree(run)
        Hook.after_step(self, trainer, result)

    monkeypatch.setattr(ProgressHook, "after_step", vanish)
    with pytest.raises(CheckpointError, match="is gone"):
        train_and_evaluate(str(click_config()), model_dir=str(run), edits=STOPPED)
    assert not run.exists()


def test_a_run_saves_by_the_time_of_its_rows(click_config, tmp_path):
    """Row numbers stand in for seconds: batches of 64 pass 300, 600 and 900."""
    config, run = str(click_config(shuffle=False)), tmp_path / "run"
    edits = ["data_config.event_time_field=row", "train_config.num_epochs=1"]
    edits += ["train_config.save_checkpoints_steps=0"]
    interval = "train_config.save_checkpoints_timestamp_interval=300"
    train_and_evaluate(config, model_dir=str(run), edits=[*edits, interval])
    assert [path.name for path in list_checkpoints(run)] == [
        f"model.ckpt-{step}" for step in (300 // 64, 600 // 64, 900 // 64, 15)
    ]
    position = read_data_position(run / f"model.ckpt-{300 // 64}")
    assert position["__data_ts_watermark__"] == 5 * 64 - 1


def test_saving_by_time_needs_a_time(click_config, tmp_path):
    edits = ["train_config.save_checkpoints_timestamp_interval=300"]
    with pytest.raises(ConfigError, match=r"data_config\.event_time_field is not"):
        train_and_evaluate(str(click_config()), model_dir=str(tmp_path / "run"), edits=edits)
