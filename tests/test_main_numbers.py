"""Precision, frozen and half tables, weights of rows and losses: through the public functions."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from tzrec.main import export, predict, predict_checkpoint, train_and_evaluate
from tzrec.training.checkpoint.find import list_checkpoints, read_results

POOLED = "model.embedding_group.emb_impls.__BASE__.ebc.embedding_bags"
STEPS = "model.embedding_group.seq_emb_impls.__BASE__.ec_dict.8.embeddings"
ALL_OPTIMIZERS = ["sgd", "adagrad", "rowwise_adagrad", "adam"]


def _weights(run, *, first=False):
    checkpoint = list_checkpoints(run)[0 if first else -1]
    return _load_state_dict_from_keys(checkpoint_id=str(checkpoint / "model"))


def _change(path, *pairs):
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return str(path)


def _scores(path):
    return np.array(pq.read_table(path / "part-0.parquet")["probs"])


def assert_export_predicts_as_the_checkpoint(config, root, tolerance=1e-6):
    export(config, str(root / "export"))
    source = str(root / "eval.parquet")
    predict(source, str(root / "scripted"), str(root / "export"), output_columns="probs")
    predict_checkpoint(config, source, str(root / "eager"), output_columns="probs")
    scripted, eager = _scores(root / "scripted"), _scores(root / "eager")
    assert eager.std() > 0.01
    np.testing.assert_allclose(scripted, eager, rtol=0, atol=tolerance)


def test_mixed_precision_learns_as_much(click_config, tmp_path):
    config = str(click_config())
    results = {}
    for name in ("FP32", "BF16", "FP16"):
        edits = ["train_config.save_checkpoints_steps=100"]
        edits += [f"train_config.mixed_precision={name}"] if name != "FP32" else []
        train_and_evaluate(config, model_dir=str(tmp_path / name), edits=edits)
        results[name] = read_results(tmp_path / name)[-1]
        weights = _weights(tmp_path / name)
        assert {value.dtype for value in weights.values()} == {torch.float32}
    exact, loss = results.pop("FP32"), "binary_cross_entropy"
    for mixed in results.values():
        assert mixed[loss] != exact[loss]
        assert mixed[loss] == pytest.approx(exact[loss], abs=0.04)
        assert mixed["auc"] == pytest.approx(exact["auc"], abs=0.02)


@pytest.mark.parametrize("optimizer", ALL_OPTIMIZERS)
def test_frozen_tables_do_not_move(click_config, tmp_path, optimizer):
    """Frozen: the items of both collections; the other tables of the same collection learn."""
    path = click_config(f"{optimizer}_optimizer")
    frozen = 'embedding_name: "item"\n    trainable: false\n'
    config = _change(path, ('embedding_name: "item"\n', frozen))
    edits = ["train_config.save_checkpoints_steps=1", "train_config.keep_checkpoint_max=100"]
    edits += ["train_config.num_epochs=0", "train_config.num_steps=6", "eval_config.num_steps=1"]
    train_and_evaluate(config, edits=edits)
    before, after = _weights(tmp_path / "run", first=True), _weights(tmp_path / "run")
    for key in (f"{POOLED}.item.weight", f"{STEPS}.item.weight"):
        assert torch.equal(before[key], after[key]), key
        assert before[key].abs().sum() > 0
    for key in (f"{POOLED}.user_id_emb.weight", f"{POOLED}.tags_emb.weight"):
        assert not torch.equal(before[key], after[key]), key


@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
def test_half_tables_train_and_export(click_config, tmp_path, optimizer):
    half = 'data_type: "FP16"'
    path = click_config(f"{optimizer}_optimizer")
    config = _change(
        path, *((f"num_buckets: {n}\n", f"num_buckets: {n} {half}\n") for n in (40, 30, 5))
    )
    train_and_evaluate(config)
    results = read_results(tmp_path / "run")
    assert results[-1]["binary_cross_entropy"] < results[0]["binary_cross_entropy"]
    tables = {k: v for k, v in _weights(tmp_path / "run").items() if k.startswith((POOLED, STEPS))}
    assert len(tables) == 4
    assert {value.dtype for value in tables.values()} == {torch.float16}
    assert_export_predicts_as_the_checkpoint(config, tmp_path)


def _with_weights(tmp_path, weight):
    for name in ("train", "eval"):
        table = pq.read_table(tmp_path / f"{name}.parquet")
        column = pa.array(weight(table).astype(np.float32))
        pq.write_table(table.append_column("weight", column), tmp_path / f"{name}.parquet")


def test_rows_of_weight_0_teach_nothing(click_config, tmp_path):
    """Labels of rows without weight are turned round: nothing changes but the plain metrics."""
    path = click_config()
    fields = 'label_fields: "clk" sample_weight_fields: "weight"'
    config = _change(path, ('label_fields: "clk"', fields))
    _with_weights(tmp_path, lambda table: np.array(table["row"]) % 2)
    train_and_evaluate(config, model_dir=str(tmp_path / "plain"))
    for name in ("train", "eval"):
        table = pq.read_table(tmp_path / f"{name}.parquet")
        clk, row = np.array(table["clk"]), np.array(table["row"])
        turned = pa.array(np.where(row % 2 == 0, 1 - clk, clk))
        table = table.set_column(table.schema.get_field_index("clk"), "clk", turned)
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=300)
    train_and_evaluate(config, model_dir=str(tmp_path / "turned"))
    plain, turned = _weights(tmp_path / "plain"), _weights(tmp_path / "turned")
    assert plain.keys() == turned.keys()
    assert all(torch.equal(plain[key], turned[key]) for key in plain)
    left, right = (read_results(tmp_path / name)[-1] for name in ("plain", "turned"))
    assert left["binary_cross_entropy"] == right["binary_cross_entropy"]
    assert left["auc"] != right["auc"]


def test_loss_weight_is_a_factor_of_the_loss(click_config, tmp_path):
    """With SGD everywhere, half the loss at twice the rate are the same steps."""
    path = click_config("sgd_optimizer")
    config = _change(path, ("adam_optimizer { lr: 0.02 }", "sgd_optimizer { lr: 0.02 }"))
    train_and_evaluate(config, model_dir=str(tmp_path / "one"))
    config = _change(
        path,
        ("binary_cross_entropy {}", "binary_cross_entropy {} weight: 0.5"),
        ("sgd_optimizer { lr: 0.02 }", "sgd_optimizer { lr: 0.04 }"),
        ("sgd_optimizer { lr: 0.1 }", "sgd_optimizer { lr: 0.2 }"),
    )
    train_and_evaluate(config, model_dir=str(tmp_path / "half"))
    one, half = (read_results(tmp_path / name)[-1] for name in ("one", "half"))
    loss = "binary_cross_entropy"
    assert half[loss] == pytest.approx(one[loss] / 2, rel=1e-5)
    assert half["auc"] == pytest.approx(one["auc"], abs=1e-4)


SHOP = '''
import dataclasses
import torch
from torch import nn
from tzrec.models.rank_model import RankModel
from tzrec.modules.mlp import MLP


class Gated(RankModel):
    """Two MLPs over one group, one of them the gate of the other."""

    @dataclasses.dataclass
    class Config:
        group: str
        width: int = 4

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.init_input()
        config = self._model_config
        dim = self.embedding_group.group_total_dim(config.group)
        self.value = MLP(dim, [config.width])
        self.gate = MLP(dim, [config.width], activation="nn.Sigmoid")
        self.output = nn.Linear(config.width, self._num_class)

    def predict(self, batch):
        x = self.build_input(batch)[self._model_config.group]
        return self._output_to_prediction(self.output(self.value(x) * self.gate(x)))
'''


def test_a_model_of_ones_own_from_training_to_prediction(click_config, tmp_path, monkeypatch):
    (tmp_path / "gated_shop.py").write_text(SHOP)
    monkeypatch.syspath_prepend(tmp_path)
    path = click_config()
    text = path.read_text()
    start, end = text.index("  multi_tower_din {"), text.index("  losses {")
    fields = 'fields { key: "group" value { string_value: "deep" } }'
    fields += ' fields { key: "width" value { number_value: 12 } }'
    custom = f'custom_model {{ class_path: "gated_shop.Gated" params {{ {fields} }} }}\n'
    path.write_text(text[:start] + custom + text[end:])
    train_and_evaluate(str(path))
    assert read_results(tmp_path / "run")[-1]["auc"] > 0.75
    assert _weights(tmp_path / "run")["model.value.mlp.0.perceptron.0.weight"].shape[0] == 12
    assert_export_predicts_as_the_checkpoint(str(path), tmp_path)
    assert (tmp_path / "export" / "pipeline.config").read_text().count("gated_shop.Gated") == 1
