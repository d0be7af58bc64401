"""The shipped examples: valid, described, and learning what they learnt when they were written."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format

from tzrec.cli import main
from tzrec.config import prepare
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.tools.convert import frappe
from tzrec.tools.convert.columns import Id

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.config"))

ROWS, BATCH, STEPS, LARGEST = 1024, 128, 16, 50
# Loss on the rows after STEPS batches, written down from the first run that passed all tests of
# its model. A change here is a change of what is learnt: explain it in the commit.
GOLDEN = {
    "deepfm_criteo": 0.47237,
    "deepfm_frappe": 0.71201,
    "multi_tower_din_taobao": 0.67096,
    "multi_tower_taobao": 0.68012,
    "wide_and_deep_criteo": 0.49826,
}


def stem(path):
    return path.stem


@pytest.mark.parametrize("path", EXAMPLES, ids=stem)
def test_is_valid(path, capsys):
    assert main(["check", str(path)]) == 0
    assert "OK" in capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES, ids=stem)
def test_header_says_what_it_needs_and_how_to_run_it(path):
    header = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert "# Needs: " in header
    assert f"tzrec train examples/{path.name}" in header
    config = prepare(str(path)).config
    paths = f"{config.train_input_path},{config.eval_input_path}"
    for folder in re.findall(r"data/\w+", header):
        assert folder in paths
    for change in re.findall(r"# Change:  add (.*)", header):
        assert main(["check", str(path), *shlex.split(change)]) == 0


def test_frappe_is_what_the_conversion_writes():
    """The same training, data and model; the published sizes."""
    example = prepare(str(ROOT / "examples" / "deepfm_frappe.config")).config
    sizes = [957, 4082, 7, 7, 2, 3, 2, 9, 80, 233]
    text = frappe.MODEL.replace("FEATURE_GROUPS", "")
    for (name, side), size in zip(frappe._SIDES.items(), sizes, strict=True):
        feature = Id(name, side, size, dim=10, init_fn="nn.init.normal_,std=1e-4").to_text()
        text += f"feature_configs {{ {feature} }}\n"
    written = text_format.Parse(
        f'train_input_path: "a" eval_input_path: "b" model_dir: "c" {text}', EasyRecConfig()
    )
    assert list(example.feature_configs) == list(written.feature_configs)
    for part in ("train_config", "data_config", "export_config"):
        assert getattr(example, part) == getattr(written, part)
    for group in example.model_config.feature_groups:
        assert list(group.feature_names) == list(frappe._SIDES)
    del example.model_config.feature_groups[:]
    assert example.model_config == written.model_config


def small_rows(config):
    """Columns for all features; the label follows the first two of them."""
    rng = np.random.default_rng(3)
    columns, signal = {}, np.zeros(ROWS)
    for wrapper in config.feature_configs:
        kind = wrapper.WhichOneof("feature")
        feature = getattr(wrapper, kind)
        if kind == "sequence_feature":
            lengths = rng.integers(0, 8, ROWS)
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            for step in feature.features:
                size = step.id_feature.num_buckets
                steps = pa.array(rng.integers(0, size, lengths.sum()))
                name = f"{feature.sequence_name}__{step.id_feature.feature_name}"
                columns[name] = pa.ListArray.from_arrays(offsets, steps)
            continue
        if kind == "raw_feature" and not feature.boundaries:
            values = rng.normal(size=ROWS).astype(np.float32)
            effect = values
        else:
            size = feature.hash_bucket_size or feature.num_buckets if kind == "id_feature" else 0
            size = size or len(feature.boundaries) + 1
            values = rng.integers(0, size, ROWS)
            effect = rng.normal(size=size)[values]
        columns[feature.feature_name] = pa.array(values)
        signal += effect if len(columns) <= 2 else 0
    label = rng.random(ROWS) < 1 / (1 + np.exp(-2 * signal))
    return pa.table({config.data_config.label_fields[0]: label.astype(np.float32), **columns})


@pytest.mark.parametrize("path", EXAMPLES, ids=stem)
def test_learns_what_it_learnt(path, tmp_path):
    from tzrec.main import train_and_evaluate

    large = f"[id_feature.num_buckets>{LARGEST}]"
    edits = {
        f"feature_configs{large}.id_feature.num_buckets": LARGEST,
        "train_config.num_epochs": 0,
        "train_config.num_steps": STEPS,
        "train_config.save_checkpoints_epochs": 0,
        "train_config.use_tensorboard": False,
        "data_config.batch_size": BATCH,
        "data_config.num_workers": 0,
        "data_config.shuffle": False,
    }
    if "click_50_seq" in path.read_text():
        steps = "feature_configs[sequence_feature.sequence_name=click_50_seq].sequence_feature"
        edits[f"{steps}.features[:].id_feature.num_buckets"] = LARGEST
    config = prepare(str(path), edit_config_json=json.dumps(edits)).config
    data = str(tmp_path / "rows.parquet")
    pq.write_table(small_rows(config), data)
    train_and_evaluate(
        str(path),
        train_input_path=data,
        eval_input_path=data,
        model_dir=str(tmp_path / "model"),
        edit_config_json=json.dumps(edits),
    )
    lines = (tmp_path / "model" / "train_eval_result_v2.txt").read_text().splitlines()
    result = json.loads(lines[-1])
    assert result["auc"] > 0.6
    assert result["binary_cross_entropy"] == pytest.approx(GOLDEN[path.stem], abs=1e-3)


def test_every_example_has_a_golden_loss():
    assert set(GOLDEN) == {path.stem for path in EXAMPLES}
