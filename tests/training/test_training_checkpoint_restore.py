"""What a restore takes: renamed parameters, other programs' directories, averages, reports."""

import json
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from checkpoint_models import WEIGHT, States, Tables, snapshot
from torch import nn

from tzrec.errors import CheckpointError, ConfigError
from tzrec.optim.ema import DenseEma
from tzrec.training.checkpoint.find import latest_checkpoint, resolve
from tzrec.training.checkpoint.rename import read_param_map, stored_names
from tzrec.training.checkpoint.report import RestoreReport
from tzrec.training.checkpoint.restore import open_checkpoint, restore_model
from tzrec.training.checkpoint.save import Snapshot, save_checkpoint


class Net(nn.Module):
    """A state dict with the keys that are given, each a vector of two."""

    def __init__(self, *keys, value=0.0, size=2):
        super().__init__()
        for key in keys:
            *path, name = key.split(".")
            at = self
            for part in path:
                if not hasattr(at, part):
                    at.add_module(part, nn.Module())
                at = getattr(at, part)
            at.register_parameter(name, nn.Parameter(torch.full((size,), value)))


def _save(root, *keys, step=0, value=7.0):
    model = Net(*keys, value=value)
    return save_checkpoint(root, Snapshot(step, model.state_dict(), {}, {}, {}))


def _restore(path, *keys, **options):
    model = Net(*keys)
    with open_checkpoint(model, path, **options) as restorer:
        report = restorer.weights()
    restored = {key for key, value in model.state_dict().items() if (value == 7.0).all()}
    left = {key for key, value in model.state_dict().items() if (value == 0.0).all()}
    assert len(restored) + len(left) == len(keys)
    return restored, report


class TestParamMap:
    def _map(self, tmp_path, text):
        (tmp_path / "map.txt").write_text(text)
        return read_param_map(str(tmp_path / "map.txt"))

    def test_a_parameter_comes_from_another_name(self, tmp_path):
        path = _save(tmp_path, "model.a", "model.old")
        names = self._map(tmp_path, "# new old\n\nmodel.new \t model.old\n")
        restored, report = _restore(path, "model.a", "model.new", param_map=names)
        assert restored == {"model.a", "model.new"}
        assert report.renamed == {"model.new": "model.old"}
        assert report.exact

    def test_one_parameter_may_serve_two(self, tmp_path):
        path = _save(tmp_path, "model.old")
        names = self._map(tmp_path, "model.x model.old\nmodel.y model.old\n")
        restored, _ = _restore(path, "model.x", "model.y", param_map=names)
        assert restored == {"model.x", "model.y"}

    def test_the_map_wins_over_the_same_name(self, tmp_path):
        model = Net("model.a", value=1.0)
        model.register_parameter("b", nn.Parameter(torch.full((2,), 7.0)))
        path = save_checkpoint(tmp_path, Snapshot(0, model.state_dict(), {}, {}, {}))
        restored, _ = _restore(path, "model.a", param_map={"model.a": "b"})
        assert restored == {"model.a"}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("model.a\n", "map.txt:1: 'model.a' has 1 names instead of two"),
            ("\nmodel.a model.b model.c\n", "map.txt:2: .* has 3 names"),
            ("model.a model.b\nmodel.a model.c\n", "map.txt:2: model.a is renamed twice"),
        ],
    )
    def test_wrong_lines(self, tmp_path, text, message):
        with pytest.raises(ConfigError, match=message):
            self._map(tmp_path, text)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(ConfigError, match="does not exist"):
            read_param_map(str(tmp_path / "no.txt"))

    def test_unknown_names_are_refused_with_the_nearest(self, tmp_path):
        path = _save(tmp_path, "model.old")
        with pytest.raises(CheckpointError, match=r"checkpoint has no parameter model\.odl; did"):
            _restore(path, "model.new", param_map={"model.new": "model.odl"})
        with pytest.raises(CheckpointError, match=r"model has no parameter model\.nwe; did"):
            _restore(path, "model.new", param_map={"model.nwe": "model.old"})

    def test_optimizer_states_follow_the_name(self, tmp_path):
        model = Tables({"num_buckets": 3}).fill()
        saved = model.state_dict()
        old = WEIGHT.replace(".t.", ".old.")
        saved[old] = saved.pop(WEIGHT)
        states = {f"old{name[1:]}": value for name, value in States(model, 5.0).table.items()}
        optimizer = {"state": {old: states}}
        path = save_checkpoint(tmp_path, Snapshot(0, saved, optimizer, {}, {}))
        target = Tables({"num_buckets": 3})
        restored = States(target)
        with open_checkpoint(target, path, param_map={WEIGHT: old}) as restorer:
            restorer.weights()
            report = restorer.optimizer(restored)
        assert torch.equal(target.rows, model.rows)
        assert restored.table["t.row"].tolist() == [5.0, 6.0, 7.0]
        assert report.renamed[f"state.{WEIGHT}.t.row"] == f"state.{old}.old.row"
        assert report.missing == ["state.model.head.weight.exp_avg"]


class TestOldNames:
    """Renames of reference 01 §1.1.5, tried when a key is missing."""

    BASE = "model.embedding_group.seq_emb_impls.__BASE__"

    @pytest.mark.parametrize(
        ("new", "old"),
        [
            ("{b}.ec_dict.2.embeddings.item.weight", "{b}.ec_list.0.embeddings.item.weight"),
            ("{b}.mc_ec_dict.2._x.weight", "{b}.mc_ec_list.3._x.weight"),
            ("{b}.ebc_user.embedding_bags.u.weight", "{b}.ebc.embedding_bags.u.weight"),
            ("{b}.ec_dict_user.2.embeddings.u.weight", "{b}.ec_dict.2.embeddings.u.weight"),
            ("{b}.ec_dict_user.2.embeddings.u.weight", "{b}.ec_list.1.embeddings.u.weight"),
            ("{b}.mc_ebc_user.x.weight", "{b}.mc_ebc.x.weight"),
            ("{b}.mc_ec_dict_user.2.x.weight", "{b}.mc_ec_dict.2.x.weight"),
        ],
    )
    def test_each(self, tmp_path, new, old):
        new, old = new.format(b=self.BASE), old.format(b=self.BASE)
        restored, report = _restore(_save(tmp_path, old), new)
        assert restored == {new}
        assert report.renamed == {new: old}

    def test_the_present_name_wins(self):
        new, old = "m.ebc_user.a.weight", "m.ebc.a.weight"
        assert stored_names({new: (2,)}, {new: (2,), old: (2,)}, {}) == {new: new}

    def test_a_list_is_told_by_its_dimension(self):
        new = "m.ec_dict.8.embeddings.item.weight"
        stored = {f"m.ec_list.{i}.embeddings.item.weight": (5, dim) for i, dim in enumerate((4, 8))}
        assert stored_names({new: (5, 8)}, stored, {}) == {
            new: "m.ec_list.1.embeddings.item.weight"
        }


class TestOtherPrograms:
    """Directories of the interface's layout: no manifest, no trainer state."""

    def _write(self, root, *, meta=None):
        model = Tables({"num_buckets": 3}).fill()
        dcp.save(model.state_dict(), checkpoint_id=str(root / "model"), no_dist=True)
        dcp.save(
            States(model, 5.0).state_dict(), checkpoint_id=str(root / "optimizer"), no_dist=True
        )
        (root / "dataloader_state.json").write_text('{"__epochs_completed__": 1}')
        (root / "plan").write_text("{}")
        if meta is not None:
            (root / "meta").write_text(json.dumps(meta))
        return model

    def _read(self, root):
        model = Tables({"num_buckets": 3})
        model.rows.fill_(-1.0)
        states = States(model)
        with open_checkpoint(model, root) as restorer:
            return model, states, restorer.weights(), restorer.optimizer(states)

    def test_weights_and_states_are_read(self, tmp_path):
        written = self._write(tmp_path / "model.ckpt-12")
        assert latest_checkpoint(tmp_path) == (tmp_path / "model.ckpt-12", 12)
        model, states, report, of_states = self._read(tmp_path / "model.ckpt-12")
        assert torch.equal(model.rows, written.rows)
        assert states.table["t.row"].tolist() == [5.0, 6.0, 7.0]
        assert report.exact
        assert of_states.exact

    def test_meta_says_what_to_leave_out(self, tmp_path):
        self._write(tmp_path / "a", meta={"load_model": False})
        model, _, report, of_states = self._read(tmp_path / "a")
        assert (model.rows == -1).all()
        assert "load_model: false" in str(report)
        assert of_states.exact
        self._write(tmp_path / "b", meta={"load_optim": False})
        model, states, report, of_states = self._read(tmp_path / "b")
        assert report.exact
        assert "load_optim: false" in of_states.table()
        assert (states.table["t.row"] == 0).all()
        (tmp_path / "b" / "meta").write_text("{")
        with pytest.raises(CheckpointError, match="is not JSON"):
            self._read(tmp_path / "b")

    def test_a_bare_directory_is_step_zero(self, tmp_path):
        self._write(tmp_path / "bare")
        assert resolve("unused", str(tmp_path / "bare")) == (tmp_path / "bare", 0)

    @pytest.mark.parametrize("damage", ["truncated", "missing", "no metadata"])
    def test_a_damaged_one_is_passed_over(self, tmp_path, damage):
        self._write(tmp_path / "model.ckpt-12")
        data = tmp_path / "model.ckpt-12" / "optimizer" / "__0_0.distcp"
        if damage == "truncated":
            data.write_bytes(data.read_bytes()[:-20])
        elif damage == "missing":
            data.unlink()
        else:
            (data.parent / ".metadata").unlink()
        assert latest_checkpoint(tmp_path) == (None, -1)
        with pytest.raises(CheckpointError, match="optimizer/"):
            resolve("unused", str(tmp_path / "model.ckpt-12"))

    def test_optimizer_states_may_be_absent(self, tmp_path):
        self._write(tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "optimizer")
        assert "has no optimizer states" in str(self._read(tmp_path / "run")[3])


class TestAverages:
    def _ema(self, model, decay=0.5):
        return DenseEma({"model.head.weight": model.model.head.weight}, decay)

    def test_they_come_back(self, tmp_path):
        model = Tables({"num_buckets": 3})
        ema = self._ema(model)
        ema.update()
        with torch.no_grad():
            model.model.head.weight.add_(1.0)
        ema.update()
        path = save_checkpoint(tmp_path, snapshot(1, model, ema=ema.state_dict()))
        assert (path / "dense_ema" / ".metadata").exists()
        other = Tables({"num_buckets": 3})
        restored = self._ema(other)
        with open_checkpoint(other, path) as restorer:
            restorer.weights()
            assert restorer.averages(restored).exact
        assert restored.num_averaged == 2
        with restored.swapped():
            expected = model.model.head.weight - 0.5  # (w + (w + 1)) / 2
            assert torch.allclose(other.model.head.weight, expected)

    def test_a_checkpoint_without_any(self, tmp_path):
        model = Tables({"num_buckets": 3})
        path = save_checkpoint(tmp_path, snapshot(1, model))
        with open_checkpoint(model, path) as restorer:
            assert "no averages" in str(restorer.averages(self._ema(model)))


class TestReports:
    def test_every_kind_is_counted_and_named(self):
        report = RestoreReport(
            matched=["a", "b"],
            missing=[f"m{i}" for i in range(12)],
            unexpected=["u"],
            renamed={"b": "old"},
            resized={"t": "3 of 5 rows kept, 2 start afresh"},
        )
        lines = report.table().splitlines()
        assert [line.split()[:2] for line in lines if line.startswith("  ") and line[2] != " "] == [
            ["matched", "2"],
            ["missing", "12"],
            ["unexpected", "1"],
            ["renamed", "1"],
            ["resized", "1"],
        ]
        assert "    b from old" in lines
        assert "    t: 3 of 5 rows kept, 2 start afresh" in lines
        assert "and 2 more" in report.table()
        assert "m11" not in report.table()
        assert not report.exact

    def test_an_optimizer_of_another_kind_says_what_to_do(self, tmp_path):
        model = Tables({"num_buckets": 3})
        states = States(model, 1.0)
        path = save_checkpoint(tmp_path, snapshot(0, model, states))
        states.table["t.momentum1"] = torch.zeros(3)
        with (
            open_checkpoint(model, path) as restorer,
            pytest.raises(CheckpointError, match="shapes differ") as caught,
        ):
            restorer.optimizer(states)
        assert "--ignore_restore_optimizer" in caught.value.hint

    def test_a_damaged_file_is_a_checkpoint_error(self, tmp_path):
        path = _save(tmp_path, "a")
        (path / "model" / ".metadata").write_bytes(b"nothing")
        with pytest.raises(CheckpointError, match="is not a checkpoint directory"):
            restore_model(Net("a"), path)

    def test_accumulating_gradients_belong_to_one_run(self, tmp_path):
        model = Tables({"num_buckets": 3})

        class Accumulating(States):
            pending = b"stored"

            def state_dict(self):
                return {**super().state_dict(), "accumulation": self.pending}

            def load_state_dict(self, state):
                super().load_state_dict(state)
                self.pending = state["accumulation"]

        path = save_checkpoint(tmp_path, snapshot(0, model, Accumulating(model, 1.0)))
        for resume, expected in ((True, b"stored"), (False, b"own")):
            optimizer = Accumulating(model)
            optimizer.pending = b"own"
            with open_checkpoint(model, path) as restorer:
                restorer.optimizer(optimizer, resume=resume)
            assert optimizer.pending == expected
