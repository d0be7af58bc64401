"""Small complete configs of every model family and rows for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

FEATURES = """
feature_configs { id_feature { feature_name: "user_id" expression: "user:user_id"
    num_buckets: 50 embedding_dim: 8 } }
feature_configs { id_feature { feature_name: "item_id" expression: "item:item_id"
    num_buckets: 40 embedding_dim: 8 embedding_name: "item" } }
feature_configs { id_feature { feature_name: "tags" expression: "item:tags"
    num_buckets: 30 embedding_dim: 8 pooling: "mean" } }
feature_configs { id_feature { feature_name: "likes" expression: "user:likes"
    num_buckets: 30 embedding_dim: 8 weighted: true } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
feature_configs { raw_feature { feature_name: "pair" expression: "item:pair" value_dim: 2 } }
feature_configs { raw_feature { feature_name: "age" expression: "user:age" embedding_dim: 8
    autodis { num_channels: 4 } } }
feature_configs { sequence_feature { sequence_name: "click" sequence_length: 10 sequence_delim: ";"
    features { id_feature { feature_name: "item_id" expression: "item:item_id"
        num_buckets: 40 embedding_dim: 8 embedding_name: "item" } }
    features { raw_feature { feature_name: "price" expression: "item:price" } } } }
"""

ALL_IDS = 'feature_names: ["user_id", "item_id", "tags", "likes"]'
DEEP = 'feature_names: ["user_id", "item_id", "tags", "likes", "price", "pair", "age"]'
QUERY = 'feature_names: ["item_id", "price", "click__item_id", "click__price"]'

MLP = "hidden_units: [16, 8] dropout_ratio: [0.3, 0.3]"

MODELS = {
    "WideAndDeep": f"""
feature_groups {{ group_name: "wide" group_type: WIDE {ALL_IDS} }}
feature_groups {{ group_name: "deep" group_type: DEEP {DEEP} }}
wide_and_deep {{ deep {{ {MLP} }} }}
losses {{ binary_cross_entropy {{}} }}""",
    "DeepFM": f"""
feature_groups {{ group_name: "wide" group_type: WIDE {ALL_IDS} }}
feature_groups {{ group_name: "fm" group_type: DEEP {ALL_IDS} }}
feature_groups {{ group_name: "deep" group_type: DEEP {DEEP} }}
deepfm {{ deep {{ {MLP} }} final {{ hidden_units: 8 }} }}
losses {{ binary_cross_entropy {{}} }}""",
    "MultiTower": f"""
feature_groups {{ group_name: "user" group_type: DEEP feature_names: ["user_id", "likes", "age"]
    sequence_groups {{ group_name: "click" {QUERY} }}
    sequence_encoders {{ din_encoder {{ input: "click"
        attn_mlp {{ hidden_units: 8 activation: "Dice" }} }} }}
    sequence_encoders {{ pooling_encoder {{ input: "click" pooling_type: "mean" }} }}
    sequence_encoders {{ simple_attention {{ input: "click" }} }}
    sequence_encoders {{ self_attention_encoder {{ input: "click"
        multihead_attn_dim: 8 num_heads: 2 }} }}
    sequence_encoders {{ multi_window_din_encoder {{ input: "click" windows_len: [1, 2, 9]
        attn_mlp {{ hidden_units: 8 }} }} }} }}
feature_groups {{ group_name: "item" group_type: DEEP
    feature_names: ["item_id", "tags", "price", "pair"] }}
multi_tower {{ towers {{ input: "user" mlp {{ {MLP} use_bn: true }} }}
    towers {{ input: "item" mlp {{ {MLP} use_ln: true activation: "Dice" }} }}
    final {{ hidden_units: 8 }} }}
num_class: 3
variational_dropout {{ }}
losses {{ softmax_cross_entropy {{}} }}""",
    "MultiTowerDIN": f"""
feature_groups {{ group_name: "deep" group_type: DEEP {DEEP} }}
feature_groups {{ group_name: "seq" group_type: SEQUENCE {QUERY} }}
multi_tower_din {{ towers {{ input: "deep" mlp {{ {MLP} }} }}
    din_towers {{ input: "seq" attn_mlp {{ hidden_units: [8, 4] }} }}
    final {{ hidden_units: 8 }} }}
num_class: 2
losses {{ jrc_loss {{ session_name: "user_id" }} }}""",
}

OUTPUTS = {
    "WideAndDeep": ["logits", "probs"],
    "DeepFM": ["logits", "probs"],
    "MultiTower": ["logits", "probs"],
    "MultiTowerDIN": ["logits", "probs", "probs1"],
}


def write_config(path: Path, model: str, *, data: Path, extra: str = "") -> Path:
    """Writes the config of ``model`` and returns its path."""
    text = f"""
train_input_path: "{data}"
eval_input_path: ""
model_dir: "{path.parent / "run"}"
train_config {{ num_epochs: 1
    sparse_optimizer {{ adagrad_optimizer {{ lr: 0.1 }} constant_learning_rate {{}} }}
    dense_optimizer {{ adam_optimizer {{ lr: 0.01 }} constant_learning_rate {{}} }} }}
data_config {{ dataset_type: ParquetDataset batch_size: 32 label_fields: "label"
    fg_mode: FG_NONE num_workers: 1 }}
{FEATURES}
model_config {{ {MODELS[model]} metrics {{ {_METRIC[model]} {{}} }} }}
{extra}
"""
    path.write_text(text)
    return path


_METRIC = {
    "WideAndDeep": "auc",
    "DeepFM": "auc",
    "MultiTower": "accuracy",
    "MultiTowerDIN": "auc",
}


def make_rows(num_rows: int, *, seed: int = 0, empty: bool = False) -> pa.Table:
    """Rows with missing ids, empty and long sequences, as FG_NONE columns."""
    rng = np.random.default_rng(seed)

    def joined(high: int, most: int, separator: str, weights: bool = False) -> list[str | None]:
        cells: list[str | None] = []
        for _ in range(num_rows):
            ids = rng.integers(0, high, 0 if empty else rng.integers(0, most + 1))
            words = [f"{i}:{rng.integers(1, 8) / 4}" if weights else str(i) for i in ids]
            cells.append(separator.join(words) if len(ids) else None)
        return cells

    clicks = joined(40, 12, ";")
    prices = [
        None if cell is None else ";".join(f"{int(i) / 8}" for i in cell.split(";"))
        for cell in clicks
    ]
    return pa.table(
        {
            "row": pa.array(np.arange(num_rows)),
            "user_id": pa.array(rng.integers(0, 50, num_rows)),
            "item_id": pa.array(rng.integers(0, 40, num_rows)),
            "tags": pa.array(joined(30, 3, "\x03"), pa.string()),
            "likes": pa.array(joined(30, 3, "\x03", weights=True), pa.string()),
            "price": pa.array(rng.normal(size=num_rows).astype(np.float32)),
            "pair": pa.array([list(map(float, p)) for p in rng.normal(size=(num_rows, 2))]),
            "age": pa.array(rng.normal(size=num_rows).astype(np.float32)),
            "click__item_id": pa.array(clicks, pa.string()),
            "click__price": pa.array(prices, pa.string()),
            "label": pa.array(rng.integers(0, 2, num_rows)),
        }
    )
