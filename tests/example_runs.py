"""Quick runs of the shipped configs on made-up rows, by the commands of their headers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from example_configs import DEMO, ROOT, commands
from feed_data import FEED, feed_table, write_tokenizer

from tzrec.cli import main
from tzrec.config import prepare
from tzrec.demo.shape.shape import Shape

# Largest tables: Criteo's alone would be 5M rows. Of matching, so many items.
LARGEST, ITEMS, USERS = 50, 1000, 200
# Otherwise each row of TDM becomes 1 + 2 + 4 + …
TREE_SAMPLES = [0, 1, 2, 4, 6, 8, 10, 10]


def work_in(root: Path) -> None:
    """Puts into a working directory what the configs look for."""
    write_tokenizer(root)
    (root / "examples").symlink_to(ROOT / "examples")


def matches(config: Any) -> bool:
    """Whether a config matches users with items."""
    model = config.model_config.WhichOneof("model")
    return hasattr(getattr(config.model_config, model), "item_tower") or model == "tdm"


def small(
    path: Path, *, steps: int, batch: int, negatives: int, more: Mapping[str, Any] | None = None
) -> str:
    """Returns edits that make a config quick to train, as JSON."""
    config = prepare(str(path)).config
    edits: dict[str, Any] = {
        "train_config.num_epochs": 0,
        "train_config.num_steps": steps,
        "train_config.save_checkpoints_epochs": 0,
        "train_config.log_step_count_steps": 1,
        "train_config.use_tensorboard": False,
        # The same digits on every CPU.
        "train_config.mixed_precision": "FP32",
        "data_config.batch_size": batch,
        "data_config.num_workers": 1,
        "data_config.loader": "THREAD",
    }
    for part, rate in (("sparse_optimizer", 0.1), ("dense_optimizer", 0.001)):
        optimizer = getattr(config.train_config, part).WhichOneof("optimizer")
        edits[f"train_config.{part}.{optimizer}.lr"] = rate
    sampler = config.data_config.WhichOneof("sampler")
    if sampler == "tdm_sampler":
        edits["data_config.tdm_sampler.layer_num_sample"] = TREE_SAMPLES
    elif sampler:
        for field in ("num_sample", "num_eval_sample"):
            edits[f"data_config.{sampler}.{field}"] = negatives
    largest = ITEMS if matches(config) else LARGEST
    for i, wrapper in enumerate(config.feature_configs):
        here = f"feature_configs[{i}]"
        steps_of = enumerate(wrapper.sequence_feature.features)
        tables = {f"{here}.sequence_feature.features[{j}]": f.id_feature for j, f in steps_of}
        for place, feature in {here: wrapper.id_feature, **tables}.items():
            for size in ("num_buckets", "hash_bucket_size"):
                if getattr(feature, size) > largest and path != FEED:
                    edits[f"{place}.id_feature.{size}"] = largest
    return json.dumps(edits | dict(more or {}))


def generate(path: Path, root: Path, edits: str, *, rows: int, eval_rows: int) -> list[str]:
    """Makes rows by the command of the header; returns the arguments that train on them."""
    config = prepare(str(path), edit_config_json=edits).config
    if path in (DEMO, FEED):
        shape = Shape(config)
        tables = (
            {"train": feed_table(0, rows), "eval": feed_table(rows, rows + eval_rows)}
            if path == FEED
            else {"train": shape.table(rows, seed=1), "eval": shape.table(eval_rows, seed=2)}
        )
        for part, table in tables.items():
            pq.write_table(table, root / f"{part}.parquet")
        inputs = [f"--{part}-input-path={root / part}.parquet" for part in tables]
        return [str(path), *inputs]
    made_up = next(words for words in commands(path) if words[1:3] == ["data", "generate"])
    sizes = ["--rows", str(rows), "--eval-rows", str(eval_rows), "--users", str(USERS)]
    sizes += ["--edit-config-json", edits]
    assert main([*made_up[1:], *sizes]) == 0
    train = next(words for words in commands(path) if "--train-input-path" in words)
    assert train[:2] == ["tzrec", "train"]
    return train[2:]


def learn(arguments: list[str], edits: str, run: Path) -> Any:
    """Trains as the header says; returns the config of the run."""
    flags = ["--edit-config-json", edits, "--no-report", "--model-dir", str(run)]
    assert main(["train", *arguments, *flags]) == 0
    return prepare(str(run / "pipeline.config")).config
