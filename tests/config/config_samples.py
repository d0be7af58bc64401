# ruff: noqa: E501
"""Correct configs that tests break in one place."""

from __future__ import annotations

DEEPFM = """\
# DeepFM on four columns.
train_input_path: "data/train-*.parquet"
eval_input_path: "data/eval.parquet"
model_dir: "run"
train_config {
  sparse_optimizer {
    adagrad_optimizer { lr: 0.001 }
    constant_learning_rate {}
  }
  dense_optimizer {
    adam_optimizer { lr: 0.001 }
    constant_learning_rate {}
  }
  num_epochs: 1
}
eval_config {}
data_config {
  batch_size: 256
  dataset_type: ParquetDataset
  fg_mode: FG_NONE
  label_fields: "clk"
  num_workers: 2
}
feature_configs {
  id_feature {
    feature_name: "user_id"
    expression: "user:user_id"
    embedding_dim: 16
    num_buckets: 1000
  }
}
feature_configs {
  id_feature {
    feature_name: "item_id"
    expression: "item:item_id"
    embedding_dim: 16
    hash_bucket_size: 500
  }
}
feature_configs {
  raw_feature {
    feature_name: "price"
    expression: "item:price"
    boundaries: [1.0, 5.0, 20.0]
    embedding_dim: 16
  }
}
feature_configs {
  raw_feature {
    feature_name: "age"
    expression: "user:age"
  }
}
model_config {
  feature_groups {
    group_name: "wide"
    feature_names: ["user_id", "item_id"]
    group_type: WIDE
  }
  feature_groups {
    group_name: "fm"
    feature_names: ["user_id", "item_id", "price"]
    group_type: DEEP
  }
  feature_groups {
    group_name: "deep"
    feature_names: ["user_id", "item_id", "price", "age"]
    group_type: DEEP
  }
  deepfm {
    deep { hidden_units: [64, 32] }
    final { hidden_units: [16] }
  }
  metrics { auc {} }
  losses { binary_cross_entropy {} }
}
"""

DIN = """\
train_input_path: "data/train.csv"
eval_input_path: ""
model_dir: "run"
train_config {
  sparse_optimizer { adam_optimizer { lr: 0.001 } constant_learning_rate {} }
  dense_optimizer { adamw_optimizer { lr: 0.001 } exponential_decay_learning_rate { decay_size: 100 } }
  num_steps: 100
}
data_config {
  dataset_type: CsvDataset
  with_header: true
  label_fields: "clk"
}
feature_configs {
  id_feature { feature_name: "user" embedding_dim: 8 num_buckets: 100 }
}
feature_configs {
  id_feature { feature_name: "item" embedding_dim: 8 num_buckets: 100 embedding_name: "item_emb" }
}
feature_configs {
  sequence_feature {
    sequence_name: "click"
    sequence_length: 20
    features {
      id_feature { feature_name: "item" embedding_dim: 8 num_buckets: 100 embedding_name: "item_emb" }
    }
    features {
      raw_feature { feature_name: "price" }
    }
  }
}
model_config {
  feature_groups {
    group_name: "deep"
    feature_names: "user"
    feature_names: "item"
    group_type: DEEP
    sequence_groups {
      group_name: "history"
      feature_names: ["item", "click__item"]
    }
    sequence_encoders {
      simple_attention { input: "history" }
    }
  }
  feature_groups {
    group_name: "seq"
    feature_names: ["item", "click__item", "click__price"]
    group_type: SEQUENCE
  }
  multi_tower_din {
    towers { input: "deep" mlp { hidden_units: 32 } }
    din_towers { input: "seq" attn_mlp { hidden_units: 16 } }
    final { hidden_units: 16 }
  }
  num_class: 2
  metrics { auc {} }
  metrics { grouped_auc { grouping_key: "user" } }
  losses { softmax_cross_entropy {} }
}
"""


def write(path, text, *changes):
    """Writes ``text`` with each (old, new) replaced once, and returns the path."""
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    path.write_text(text)
    return path
