"""Training speed on a synthetic set of the shape of Taobao's ad log.

16 ids of users, ads and places, Zipf distributed over tables of 2 to 1,141,730 rows (3.1M in all),
the last 1 to 50 ads that the user clicked (25 on average, with category and brand), and two
labels, clicks and purchases, from a planted model. Vectors of 16, batches of 4096 (DSSM with
in-batch negatives: 1024), Adagrad on tables and Adam on the rest, one pass through `tzrec train`.
The models are those of `examples/*_taobao.config`. How it is timed: see `criteo_shaped`.

    python benchmarks/taobao_shaped.py --model multi_tower_din --rows 300000 --threads 2
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EXPONENT, CHUNK, LONGEST = 1.05, 100_000, 50
SIZES = {
    "user_id": 1_141_730, "cms_segid": 98, "cms_group_id": 13, "final_gender_code": 3,
    "age_level": 7, "pvalue_level": 4, "shopping_level": 4, "occupation": 2,
    "new_user_class_level": 5, "adgroup_id": 846_812, "cate_id": 12_978, "campaign_id": 423_437,
    "customer": 255_876, "brand": 461_498, "price": 100, "pid": 20,
}  # fmt: skip
# What an ad decides of a row.
OF_ADS = ("cate_id", "campaign_id", "customer", "brand", "price")
STEPS = ("adgroup_id", "cate_id", "brand")
ITEM = ("adgroup_id", *OF_ADS)
USER = tuple(name for name in SIZES if name not in (*ITEM, "pid"))
MODELS = ("multi_tower", "mmoe", "multi_tower_din", "dssm")

_MLP = "mlp { hidden_units: [512, 256, 128] }"
_LOSS = "losses { binary_cross_entropy {} } metrics { auc {} }"

CONFIG = """\
train_input_path: "{data}"
eval_input_path: ""
model_dir: "{model_dir}"
train_config {{
  sparse_optimizer {{ {optimizer}_optimizer {{ lr: 0.02 }} constant_learning_rate {{}} }}
  dense_optimizer {{ adam_optimizer {{ lr: 0.001 }} constant_learning_rate {{}} }}
  num_epochs: 1
  save_checkpoints_steps: 0
  log_step_count_steps: 50
  use_tensorboard: false
}}
data_config {{
  batch_size: {batch_size}
  dataset_type: ParquetDataset
  fg_mode: FG_NONE
  label_fields: {labels}
  num_workers: 1
}}
{features}
model_config {{ {model} }}
"""


def main() -> int:
    """Makes the data where it is missing, times two runs, prints the figures."""
    from criteo_shaped import report, train

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="multi_tower", choices=MODELS)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--mixed_precision", default="FP32", choices=["FP32", "BF16", "FP16"])
    parser.add_argument("--threads", type=int, default=0, help="OMP_NUM_THREADS; 0 leaves it")
    parser.add_argument("--optimizer", default="adagrad")
    parser.add_argument("--dir", type=Path, default=Path("experiments/taobao_shaped"))
    parser.add_argument("--set", action="append", default=[], dest="edits", metavar="A.B=V")
    args = parser.parse_args()
    data = data_file(args.dir, args.rows)
    config = args.dir / f"{args.model}.config"
    model_dir = args.dir / "model"
    config.write_text(config_text(data, model_dir, model=args.model, optimizer=args.optimizer))
    edits = [f"train_config.mixed_precision={args.mixed_precision}"]
    edits += args.edits
    one_step = [*edits, "train_config.num_steps=1", "train_config.num_epochs=0"]
    start_up = train(config, model_dir, one_step, args.threads)
    whole = train(config, model_dir, edits, args.threads)
    args.raw = False
    report(args, whole, start_up)
    return 0


def data_file(directory: Path, rows: int) -> Path:
    """Returns the Parquet file of the set, which is made where it is missing."""
    path = directory / f"train-{rows}.parquet"
    if not path.exists():
        started = time.perf_counter()
        write_data(path, rows)
        print(f"made {path} in {time.perf_counter() - started:.0f} s", flush=True)
    return path


class Shop:
    """What rows are drawn from: popularities, what belongs to an ad, what users like.

    Args:
        seed: of all draws.
        longest: steps of the longest history; the shortest has one.
    """

    def __init__(self, seed: int = 0, longest: int = LONGEST) -> None:
        self.rng = np.random.default_rng(seed)
        self.longest = longest
        self._popularity = {}
        for name, size in SIZES.items():
            weights = np.cumsum(np.arange(1, size + 1) ** -EXPONENT)
            # The frequent ids lie anywhere in a table.
            self._popularity[name] = (weights / weights[-1], self.rng.permutation(size))
        self.of_ads = {name: self.draw(name, SIZES["adgroup_id"]) for name in OF_ADS}
        self._effects = {
            name: self.rng.normal(0, 0.4, size).astype(np.float32) for name, size in SIZES.items()
        }

    def draw(self, name: str, n: int) -> np.ndarray:
        """Returns ids (n,)."""
        cumulated, order = self._popularity[name]
        return order[np.searchsorted(cumulated, self.rng.random(n))]

    def rows(self, n: int) -> pa.Table:
        """Returns the columns of n rows."""
        ids = {name: self.draw(name, n) for name in SIZES if name not in OF_ADS}
        ids |= {name: self.of_ads[name][ids["adgroup_id"]] for name in OF_ADS}
        lengths = self.rng.integers(1, self.longest + 1, n)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        steps = self.draw("adgroup_id", offsets[-1])
        history = {"adgroup_id": steps, **{name: self.of_ads[name][steps] for name in STEPS[1:]}}
        # Users click what is of a category that they clicked before.
        hits = history["cate_id"] == np.repeat(ids["cate_id"], lengths)
        share = np.add.reduceat(hits.astype(np.float32), offsets[:-1]) / lengths
        logit = sum(effect[ids[name]] for name, effect in self._effects.items()) + 4 * share - 2
        clk = self.rng.random(n) < 1 / (1 + np.exp(-logit))
        buy = clk & (self.rng.random(n) < 1 / (1 + np.exp(1.5 - 0.5 * logit)))
        columns = {"clk": pa.array(clk.astype(np.float32)), "buy": pa.array(buy.astype(np.float32))}
        columns |= {name: pa.array(values) for name, values in ids.items()}
        for name, values in history.items():
            lists = pa.ListArray.from_arrays(offsets.astype(np.int32), values)
            columns[f"click_50_seq__{name}"] = lists
        return pa.table(columns)


def write_data(path: Path, rows: int, *, seed: int = 0, longest: int = LONGEST) -> None:
    """Writes the rows to ``path``, chunk by chunk; histories have 1 to ``longest`` steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shop, writer, temporary = Shop(seed, longest), None, path.with_suffix(".part")
    for start in range(0, rows, CHUNK):
        table = shop.rows(min(CHUNK, rows - start))
        writer = writer or pq.ParquetWriter(temporary, table.schema)
        writer.write_table(table)
    assert writer is not None, "no rows"
    writer.close()
    temporary.rename(path)


def config_text(
    data: Path,
    model_dir: Path,
    *,
    model: str,
    optimizer: str = "adagrad",
    batch_size: int = 0,
    longest: int = LONGEST,
) -> str:
    """Returns the config of a model of `MODELS`; batches of 4096 (DSSM: 1024) by default."""
    return CONFIG.format(
        data=data,
        model_dir=model_dir,
        optimizer=optimizer,
        batch_size=batch_size or (1024 if model == "dssm" else 4096),
        labels='["clk", "buy"]' if model == "mmoe" else '"clk"',
        features="\n".join(_features(longest if model in ("multi_tower_din", "dssm") else 0)),
        model=_model(model),
    )


def _features(longest: int) -> list[str]:
    def table(name: str, side: str) -> str:
        shared = f' embedding_name: "{name}_emb"' if name in STEPS else ""
        return (
            f'id_feature {{ feature_name: "{name}" expression: "{side}:{name}" '
            f"num_buckets: {SIZES[name]} embedding_dim: 16{shared} }}"
        )

    sides = {name: "item" if name in ITEM else "user" for name in SIZES}
    lines = [f"feature_configs {{ {table(name, sides[name])} }}" for name in SIZES]
    if longest:
        steps = " ".join(f"features {{ {table(name, 'user')} }}" for name in STEPS)
        lines.append(
            'feature_configs { sequence_feature { sequence_name: "click_50_seq" '
            f'sequence_length: {longest} sequence_delim: "|" {steps} }} }}'
        )
    return lines


def _model(model: str) -> str:
    history = _names(f"click_50_seq__{name}" for name in STEPS)
    if model == "multi_tower":
        return (
            f"{_group('user', USER)} {_group('item', (*ITEM, 'pid'))} multi_tower {{ "
            f'towers {{ input: "user" {_MLP} }} towers {{ input: "item" {_MLP} }} '
            f"final {{ hidden_units: [64] }} }} {_LOSS}"
        )
    if model == "mmoe":
        towers = " ".join(
            f'task_towers {{ tower_name: "{tower}" label_name: "{label}" '
            f"mlp {{ hidden_units: [256, 128, 64] }} {_LOSS} }}"
            for tower, label in (("ctr", "clk"), ("cvr", "buy"))
        )
        experts = f"expert_{_MLP} num_expert: 3"
        return f"{_group('all', SIZES)} mmoe {{ {experts} {towers} }}"
    if model == "multi_tower_din":
        return (
            f'{_group("deep", SIZES)} feature_groups {{ group_name: "seq" feature_names: '
            f"[{_names(STEPS)}, {history}] group_type: SEQUENCE }} multi_tower_din {{ "
            f'towers {{ input: "deep" {_MLP} }} '
            'din_towers { input: "seq" attn_mlp { hidden_units: [256, 64] } } '
            f"final {{ hidden_units: [64] }} }} {_LOSS}"
        )
    pooled = (
        f'sequence_groups {{ group_name: "click_50_seq" feature_names: [{history}] }} '
        'sequence_encoders { pooling_encoder { input: "click_50_seq" pooling_type: "mean" } }'
    )
    return (
        f"{_group('user', (*USER, 'pid'), pooled)} {_group('item', ITEM)} dssm {{ "
        f'user_tower {{ input: "user" {_MLP} }} item_tower {{ input: "item" {_MLP} }} '
        "output_dim: 64 in_batch_negative: true similarity: COSINE temperature: 0.05 } "
        "losses { softmax_cross_entropy {} } metrics { recall_at_k { top_k: 1 } }"
    )


def _group(name: str, features: Iterable[str], more: str = "") -> str:
    return (
        f'feature_groups {{ group_name: "{name}" feature_names: [{_names(features)}] '
        f"group_type: DEEP {more} }}"
    )


def _names(features: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in features)


if __name__ == "__main__":
    sys.exit(main())
