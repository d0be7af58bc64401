# ruff: noqa: E501
"""A corpus of wrong configs: each with the first line that it must get."""

from __future__ import annotations

import pytest
from config_samples import DEEPFM, DIN, write

from tzrec.config import prepare
from tzrec.config.problem import SourceMap
from tzrec.errors import ConfigError, Unsupported

USER = '    feature_name: "user_id"\n'
LOSS = "losses { binary_cross_entropy {} }"
ENCODER = 'simple_attention { input: "history" }'

# (what is wrong, config, (old, new)..., first line after "c.config:")
CASES = [
    # Sections and required fields.
    ("no model", DEEPFM, ("deepfm {\n    deep { hidden_units: [64, 32] }\n    final { hidden_units: [16] }\n  }", ""),
     "54: model_config: no model is chosen"),
    ("no train path", DEEPFM, ('train_input_path: "data/train-*.parquet"', ""),
     "1: train_input_path: is missing: write train_input_path or give --train-input-path"),
    ("no model_dir", DEEPFM, ('model_dir: "run"', ""),
     "1: model_dir: is missing: write model_dir or give --model-dir"),
    ("no sparse optimizer", DEEPFM, ("  sparse_optimizer {\n    adagrad_optimizer { lr: 0.001 }\n    constant_learning_rate {}\n  }\n", ""),
     "5: train_config.sparse_optimizer: is missing"),
    ("empty feature", DEEPFM, ("feature_configs {", "feature_configs {}\nfeature_configs {"),
     "24: feature_configs[0]: is empty: choose id_feature, raw_feature or another kind"),
    ("no embedding_dim", DEEPFM, ("    embedding_dim: 16\n    num_buckets", "    num_buckets"),
     "25: feature_configs[0].id_feature.embedding_dim: is missing"),
    ("empty feature_name", DEEPFM, (USER, '    feature_name: ""\n'), "26: feature_configs[0].id_feature.feature_name: is empty"),
    ("no feature_name", DEEPFM, (USER, ""), "25: feature_configs[0].id_feature.feature_name: is missing"),
    # Training.
    ("steps and epochs", DEEPFM, ("num_epochs: 1", "num_epochs: 1\n  num_steps: 6"),
     "15: train_config.num_steps: num_steps (6) and num_epochs (1) are both set"),
    ("equal steps and epochs", DEEPFM, ("num_epochs: 1", "num_epochs: 1 num_steps: 1"),
     "14: train_config.num_steps: num_steps (1) and num_epochs (1) are both set"),
    ("neither steps nor epochs", DEEPFM, ("num_epochs: 1", ""),
     "5: train_config.num_epochs: is missing: neither num_epochs nor num_steps says when training ends"),
    ("no optimizer chosen", DEEPFM, ("adam_optimizer { lr: 0.001 }", ""),
     "10: train_config.dense_optimizer: no optimizer is chosen"),
    ("no learning rate", DEEPFM, ("constant_learning_rate {}", ""),
     "6: train_config.sparse_optimizer: no learning rate schedule is chosen"),
    ("mixed precision", DEEPFM, ("num_epochs: 1", 'num_epochs: 1 mixed_precision: "BF17"'),
     "14: train_config.mixed_precision: is 'BF17', must be one of BF16, FP16, FP32; did you mean 'BF16'?"),
    ("negative rate", DEEPFM, ("lr: 0.001", "lr: -1"),
     "7: train_config.sparse_optimizer.adagrad_optimizer.lr: is -1, must be at least 0"),
    ("infinite rate", DEEPFM, ("lr: 0.001", "lr: inf"),
     "7: train_config.sparse_optimizer.adagrad_optimizer.lr: is inf, must be at least 0"),
    ("beta", DEEPFM, ("adam_optimizer { lr: 0.001 }", "adam_optimizer { lr: 0.001 beta1: 1 }"),
     "11: train_config.dense_optimizer.adam_optimizer.beta1: is 1, must be at least 0 and below 1"),
    ("clipping type", DEEPFM, ("num_epochs: 1", 'num_epochs: 1 grad_clipping { clipping_type: "Normal" }'),
     "14: train_config.grad_clipping.clipping_type: is 'Normal', must be one of none, norm, value; did you mean 'norm'?"),
    ("summaries", DEEPFM, ("num_epochs: 1", 'num_epochs: 1 tensorboard_summaries: "gradients"'),
     "14: train_config.tensorboard_summaries[0]: is 'gradients', must be one of loss, learning_rate, parameter, "
     "global_gradient_norm, gradient_norm, gradient; did you mean 'gradient'?"),
    ("quorum", DEEPFM, ("num_epochs: 1", "num_epochs: 1 save_checkpoints_timestamp_quorum: 0"),
     "14: train_config.save_checkpoints_timestamp_quorum: is 0, must be above 0 and at most 1"),
    ("log steps", DEEPFM, ("num_epochs: 1", "num_epochs: 1 log_step_count_steps: 0"),
     "14: train_config.log_step_count_steps: is 0, must be at least 1"),
    ("nesterov", DEEPFM, ("adam_optimizer { lr: 0.001 }", "sgd_optimizer { lr: 0.1 momentum: 0 nesterov: true }"),
     "11: train_config.dense_optimizer.sgd_optimizer.nesterov: needs momentum above 0 and dampening 0"),
    ("T_max 0", DEEPFM, ("constant_learning_rate {}", "cosine_annealing_learning_rate { T_max: 0 }"),
     "8: train_config.sparse_optimizer.cosine_annealing_learning_rate.T_max: is 0, must be at least 1"),
    ("no T_0", DEEPFM, ("constant_learning_rate {}", "cosine_annealing_warm_restarts_learning_rate { }"),
     "8: train_config.sparse_optimizer.cosine_annealing_warm_restarts_learning_rate.T_0: is missing: how many steps the cosine takes"),
    ("no decay size", DIN, ("exponential_decay_learning_rate { decay_size: 100 }", "exponential_decay_learning_rate {}"),
     "6: train_config.dense_optimizer.exponential_decay_learning_rate.decay_size: is missing: after how many steps the rate decays"),
    ("manual steps", DEEPFM, ("constant_learning_rate {}",
     "manual_step_learning_rate { schedule_sizes: [5, 5] learning_rates: [1, 1] }"),
     "8: train_config.sparse_optimizer.manual_step_learning_rate.schedule_sizes[1]: schedule_sizes must ascend, but 5 follows 5"),
    ("manual rates", DEEPFM, ("constant_learning_rate {}",
     "manual_step_learning_rate { schedule_sizes: [5] learning_rates: [1, 1] }"),
     "8: train_config.sparse_optimizer.manual_step_learning_rate.learning_rates: has 2 values for 1 schedule_sizes"),
    ("part regex", DEEPFM, ("adam_optimizer { lr: 0.001 }",
     'adam_optimizer { lr: 0.001 } part_optimizers { regex_pattern: "a(" adam_optimizer {} }'),
     "11: train_config.dense_optimizer.part_optimizers[0].regex_pattern: 'a(' is no regular expression: "
     "missing ), unterminated subpattern at position 1"),
    ("early stop metric", DEEPFM, ("num_epochs: 1", 'num_epochs: 1 early_stop { metric: "aucc" }'),
     "14: train_config.early_stop.metric: there is no metric 'aucc'; did you mean 'auc'?"),
    ("early stop without eval", DIN, ("num_steps: 100", 'num_steps: 100 early_stop { metric: "auc" }'),
     "7: train_config.early_stop: early_stop watches a metric, but eval_input_path is empty, so nothing is evaluated"),
    ("plateau metric", DEEPFM, ("constant_learning_rate {}", 'reduce_on_plateau_learning_rate { metric: "loss" }'),
     "8: train_config.sparse_optimizer.reduce_on_plateau_learning_rate.metric: there is no metric 'loss'"),
    ("plateau factor", DEEPFM, ("constant_learning_rate {}",
     'reduce_on_plateau_learning_rate { metric: "auc" factor: 1 }'),
     "8: train_config.sparse_optimizer.reduce_on_plateau_learning_rate.factor: is 1, must be above 0 and below 1"),
    ("best without eval", DIN, ("data_config {", 'export_config { exporter_type: "best" }\ndata_config {'),
     "9: export_config.exporter_type: is best, but eval_input_path is empty, so no checkpoint is evaluated"),
    ("best metric default", DEEPFM, ("eval_config {}", 'export_config { exporter_type: "best" }'),
     ("metrics { auc {} }", "metrics { accuracy {} }"),
     "16: export_config.best_exporter_metric: there is no metric 'auc' (the default)"),
    ("exporter type", DEEPFM, ("eval_config {}", 'export_config { exporter_type: "newest" }'),
     "16: export_config.exporter_type: is 'newest', must be one of latest, best; did you mean 'best'?"),
    ("averaged weights", DEEPFM, ("eval_config {}", "eval_config { use_dense_ema: true }"),
     "16: eval_config.use_dense_ema: is true, but training does not average weights"),
    ("event time", DEEPFM, ("num_epochs: 1", "num_epochs: 1 save_checkpoints_timestamp_interval: 3600"),
     "14: train_config.save_checkpoints_timestamp_interval: is set, but data_config.event_time_field is not, so no row has a time"),
    ("parameter map", DEEPFM, ("num_epochs: 1", 'num_epochs: 1 fine_tune_checkpoint: "r" fine_tune_ckpt_param_map: "m.txt"'),
     "14: train_config.fine_tune_ckpt_param_map: file 'm.txt' does not exist"),
    ("run directory", DEEPFM, ('model_dir: "run"', 'model_dir: "c.config"'),
     "4: model_dir: 'c.config' is a file, must be a directory"),
    # Data.
    ("no label", DEEPFM, ('  label_fields: "clk"\n', ""),
     "17: data_config.label_fields: is missing: no column is named to learn from"),
    ("label twice", DEEPFM, ('label_fields: "clk"', 'label_fields: ["clk", "clk"]'),
     "21: data_config.label_fields[1]: 'clk' is given twice"),
    ("batch size", DEEPFM, ("batch_size: 256", "batch_size: 0"), "18: data_config.batch_size: is 0, must be at least 1"),
    ("wrong reader", DEEPFM, ("ParquetDataset", "CsvDataset"),
     "19: data_config.dataset_type: is CsvDataset, but train_input_path is read by ParquetDataset: data/train-*.parquet"),
    ("no reader", DEEPFM, ("  dataset_type: ParquetDataset\n", ""), ("data/train-*.parquet", "data/train-*"),
     "17: data_config.dataset_type: is missing, and train_input_path does not end in .csv or .parquet: data/train-*"),
    ("mixed files", DEEPFM, ("data/train-*.parquet", "a.parquet,b.csv"),
     "2: train_input_path: mixes 'CsvDataset', 'ParquetDataset' files"),
    ("csv without names", DIN, ("  with_header: true\n", ""),
     "9: data_config.with_header: is false, and input_fields does not name the columns"),
    ("csv delimiter", DIN, ("with_header: true", 'with_header: true delimiter: "||"'),
     "11: data_config.delimiter: is '||', must be one character"),
    ("input field", DIN, ("with_header: true", 'input_fields_str: "user:INT64;item:INT64;clik:INT;click__item:STRING;click__price:STRING"'),
     "12: data_config.label_fields[0]: label column 'clk' is not in the input_fields; did you mean 'clik'?"),
    ("input type", DIN, ("with_header: true", 'with_header: true input_fields_str: "user:INTT64"'),
     "11: data_config.input_fields_str: 'user:INTT64' has no known type; did you mean 'INT64'?"),
    ("multi-value separator", DEEPFM, ("batch_size: 256", 'fg_encoded_multival_sep: ""'),
     "18: data_config.fg_encoded_multival_sep: is empty"),
    # Features.
    ("no buckets", DEEPFM, ("    num_buckets: 1000\n", ""),
     "25: feature_configs[0].id_feature: feature 'user_id' does not say how many ids it has"),
    ("zero buckets", DEEPFM, ("num_buckets: 1000", "num_buckets: 0"),
     "29: feature_configs[0].id_feature.num_buckets: is 0, must be at least 1"),
    ("duplicate", DEEPFM, ('"item_id"\n    expression', '"user_id"\n    expression'),
     "34: feature_configs[1].id_feature.feature_name: feature 'user_id' is configured twice, before at feature_configs[0].id_feature"),
    ("side", DEEPFM, ("user:user_id", "usr:user_id"),
     "27: feature_configs[0].id_feature.expression: unknown side 'usr' in 'usr:user_id'; did you mean 'user'?"),
    ("no side", DEEPFM, ("user:user_id", "user_id"),
     "27: feature_configs[0].id_feature.expression: is 'user_id', must be side:column"),
    ("vocabulary over buckets", DEEPFM, ("num_buckets: 1000", 'num_buckets: 3 vocab_list: ["a", "b", "c", "d", "e"]'),
     "29: feature_configs[0].id_feature.num_buckets: 3 is smaller than the vocabulary (5 words + 2 reserved ids)"),
    ("verbatim vocabulary", DEEPFM, ("num_buckets: 1000", 'vocab_list: ["a", "b"] default_bucketize_value: 2'),
     "29: feature_configs[0].id_feature.default_bucketize_value: is 2, but the table has 2 rows (0 to 1)"),
    ("vocab dict over buckets", DEEPFM, ("num_buckets: 1000", 'num_buckets: 3 vocab_dict { key: "a" value: 7 }'),
     "29: feature_configs[0].id_feature.num_buckets: 3 is smaller than the vocabulary (8 ids)"),
    ("word twice", DEEPFM, ("num_buckets: 1000", 'vocab_list: ["a", "a"]'),
     "29: feature_configs[0].id_feature.vocab_list: holds 'a' more than once"),
    ("list in CSV", DEEPFM, ("dataset_type: ParquetDataset", "dataset_type: CsvDataset with_header: true"), ("train-*.parquet", "train"),
     ("data/eval.parquet", ""), ("num_workers: 2", "input_fields { input_name: 'clk' } input_fields { input_name: 'user_id' input_type: ARRAY_INT64 }"),
     "22: data_config.input_fields[1]: column 'user_id' is ARRAY_INT64, which a CSV file cannot hold"),
    ("list in CSV, as text", DEEPFM, ("dataset_type: ParquetDataset", "dataset_type: CsvDataset with_header: true"), ("train-*.parquet", "train"),
     ("data/eval.parquet", ""), ("num_workers: 2", "input_fields_str: 'clk:INT; user_id: array<int>'"),
     "22: data_config.input_fields_str: column 'user_id' is array<int>, which a CSV file cannot hold"),
    ("vocab file", DEEPFM, ("num_buckets: 1000", 'vocab_file: "no.txt" default_bucketize_value: 0'),
     "29: feature_configs[0].id_feature.vocab_file: vocabulary no.txt does not exist"),
    ("pooling", DEEPFM, ("num_buckets: 1000", 'num_buckets: 1000 pooling: "max"'),
     "29: feature_configs[0].id_feature.pooling: is 'max', must be one of sum, mean"),
    ("data type", DEEPFM, ("num_buckets: 1000", 'num_buckets: 1000 data_type: "FP8"'),
     "29: feature_configs[0].id_feature.data_type: is 'FP8', must be one of FP32, FP16"),
    ("init_fn", DEEPFM, ("num_buckets: 1000", 'num_buckets: 1000 init_fn: "uniform_,a=0"'),
     "29: feature_configs[0].id_feature.init_fn: init_fn 'uniform_,a=0': 'uniform_' is no function of torch.nn.init that fills a table; did you mean 'nn.init.uniform_'?"),
    ("init_fn syntax", DEEPFM, ("num_buckets: 1000", 'num_buckets: 1000 init_fn: "nn.init.uniform_,a="'),
     "29: feature_configs[0].id_feature.init_fn: init_fn 'nn.init.uniform_,a=': the arguments 'a=' are not constants like a=-0.01,b=0.01"),
    ("default id", DEEPFM, ("num_buckets: 1000", 'num_buckets: 1000 fg_encoded_default_value: "1000"'),
     "29: feature_configs[0].id_feature.fg_encoded_default_value: id 1000 is not in the table of 'user_id' (0 to 999)"),
    ("default word", DEEPFM, ("num_buckets: 1000", 'num_buckets: 1000 fg_encoded_default_value: "none"'),
     "29: feature_configs[0].id_feature.fg_encoded_default_value: is 'none', must be an id (several are separated by '\\x03')"),
    ("default numbers", DEEPFM, ('expression: "user:age"', 'expression: "user:age" value_dim: 2 fg_encoded_default_value: "1"'),
     "51: feature_configs[3].raw_feature.fg_encoded_default_value: holds 1 numbers, but value_dim is 2"),
    ("boundaries", DEEPFM, ("[1.0, 5.0, 20.0]", "[1.0, 5.0, 5.0]"),
     "44: feature_configs[2].raw_feature.boundaries[2]: boundaries must ascend, but 5 follows 5"),
    ("boundaries without width", DEEPFM, ("    boundaries: [1.0, 5.0, 20.0]\n    embedding_dim: 16\n", "    boundaries: [1.0]\n"),
     "41: feature_configs[2].raw_feature.embedding_dim: is missing: feature 'price' has boundaries, so it is embedded"),
    ("autodis width", DEEPFM, ('expression: "user:age"', 'expression: "user:age" value_dim: 2 embedding_dim: 4 autodis { num_channels: 3 }'),
     "51: feature_configs[3].raw_feature.autodis: autodis embeds one number, but value_dim is 2"),
    ("autodis and boundaries", DEEPFM, ("boundaries: [1.0", "autodis { num_channels: 3 } boundaries: [1.0"),
     "44: feature_configs[2].raw_feature.autodis: autodis and boundaries exclude each other"),
    ("weighted mean", DEEPFM, ("num_buckets: 1000", 'num_buckets: 1000 weighted: true pooling: "mean"'),
     "29: feature_configs[0].id_feature.weighted: weighted ids need pooling: \"sum\""),
    ("stub in a group", DEEPFM, ("num_buckets: 1000", "num_buckets: 1000 stub_type: true"),
     "29: feature_configs[0].id_feature.stub_type: feature 'user_id' is only an intermediate result, but a group uses it"),
    ("empty sequence", DIN, ("feature_configs {\n  sequence_feature {", 'feature_configs { sequence_feature { sequence_name: "s" sequence_length: 3 } }\nfeature_configs {\n  sequence_feature {'),
     "20: feature_configs[2].sequence_feature.features: sequence 's' has no features"),
    ("sequence length", DIN, ("    sequence_length: 20\n", ""), "21: feature_configs[2].sequence_feature.sequence_length: is missing"),
    # Groups.
    ("unknown feature", DEEPFM, ('"price", "age"]', '"price", "agge"]'),
     "67: model_config.feature_groups[2].feature_names[3]: feature 'agge' of group 'deep' is not configured; did you mean 'age'?"),
    ("short sequence name", DIN, ('"click__item", "click__price"', '"click__item", "price"'),
     "48: model_config.feature_groups[1].feature_names[2]: feature 'price' of group 'seq' is not configured; did you mean 'click__price'?"),
    ("feature twice in a group", DEEPFM, ('["user_id", "item_id"]', '["user_id", "user_id"]'),
     "57: model_config.feature_groups[0].feature_names[0]: feature 'user_id' is more than once in group 'wide'"),
    ("group twice", DEEPFM, ('group_name: "fm"', 'group_name: "deep"'),
     "66: model_config.feature_groups[2].group_name: group 'deep' is configured twice"),
    ("group like a method of torch", DEEPFM, ('group_name: "fm"', 'group_name: "items"'),
     "61: model_config.feature_groups[1].group_name: is 'items': it becomes part of parameter names, so it must not be the name of a method of torch"),
    ("no wide", DEEPFM, ('group_name: "wide"', 'group_name: "wyde"'),
     "70: model_config.deepfm: the model needs a feature group named 'wide'; did you mean 'wyde'?"),
    ("no deep", DEEPFM, ('group_name: "deep"', 'group_name: "dep"'),
     "70: model_config.deepfm: the model needs a feature group named 'deep'; did you mean 'dep'?"),
    ("wide group is deep", DEEPFM, ("group_type: WIDE", "group_type: DEEP"),
     "55: model_config.feature_groups[0]: group 'wide' is DEEP, but DeepFM needs it to be WIDE here"),
    ("numbers in wide", DEEPFM, ('["user_id", "item_id"]', '["user_id", "age"]'),
     "57: model_config.feature_groups[0].feature_names[1]: feature 'age' is a plain number, and the WIDE group 'wide' takes ids only"),
    ("dense sequence in deep", DIN, ('feature_names: "item"\n', 'feature_names: "item"\n    feature_names: "click__price"\n'),
     "37: model_config.feature_groups[0].feature_names[2]: feature 'click__price' is a sequence of plain numbers, "
     "which the DEEP group 'deep' cannot take"),
    ("sequence group without sequence", DIN, ('["item", "click__item", "click__price"]', '["item"]'),
     "48: model_config.feature_groups[1].feature_names: SEQUENCE group 'seq' has no sequence feature"),
    ("sequence group in wide", DIN, ("group_type: DEEP", "group_type: WIDE"),
     "38: model_config.feature_groups[0].sequence_groups: only a DEEP group may have sequence_groups, this is WIDE"),
    ("no encoder", DIN, (f"    sequence_encoders {{\n      {ENCODER}\n    }}\n", ""),
     "38: model_config.feature_groups[0].sequence_groups: there are sequence_groups, but no sequence_encoders"),
    ("encoder input", DIN, (ENCODER, 'simple_attention { input: "hist" }'),
     "43: model_config.feature_groups[0].sequence_encoders[0].simple_attention.input: there is no sequence group 'hist'; did you mean 'history'?"),
    ("attention widths", DIN, ('feature_names: ["item", "click__item"]', 'feature_names: ["item", "user", "click__item"]'),
     "43: model_config.feature_groups[0].sequence_encoders[0].simple_attention: simple_attention needs equal widths: query 16, sequence 8"),
    ("no query", DIN, ('feature_names: ["item", "click__item"]', 'feature_names: ["click__item"]'),
     "43: model_config.feature_groups[0].sequence_encoders[0].simple_attention: simple_attention compares the sequence with a query, and the group has none"),
    ("heads", DIN, (ENCODER, "self_attention_encoder { multihead_attn_dim: 10 num_heads: 4 }"),
     "43: model_config.feature_groups[0].sequence_encoders[0].self_attention_encoder.multihead_attn_dim: 10 cannot be divided among 4 heads (num_heads)"),
    ("pooling encoder", DIN, (ENCODER, 'pooling_encoder { pooling_type: "max" }'),
     "43: model_config.feature_groups[0].sequence_encoders[0].pooling_encoder.pooling_type: is 'max', must be one of mean, sum"),
    ("windows", DIN, (ENCODER, "multi_window_din_encoder { attn_mlp { hidden_units: 4 } }"),
     "43: model_config.feature_groups[0].sequence_encoders[0].multi_window_din_encoder.windows_len: is missing: how many steps each window holds"),
    # Tables.
    ("shared rows", DIN, ('num_buckets: 100 embedding_name: "item_emb" }\n    }', 'num_buckets: 200 embedding_name: "item_emb" }\n    }'),
     "25: feature_configs[2].sequence_feature.features[0].id_feature.embedding_name: features 'item' and 'click__item' share the table "
     "'item_emb', but their number of rows differs: 100 and 200"),
    ("shared pooling", DEEPFM, ("num_buckets: 1000", 'num_buckets: 500 embedding_name: "e"'),
     ("hash_bucket_size: 500", 'hash_bucket_size: 500 embedding_name: "e" pooling: "mean"'),
     "37: feature_configs[1].id_feature.embedding_name: features 'user_id' and 'item_id' share the table 'e_wide', but their pooling differs: 'sum' and 'mean'"),
    ("suffix clash", DEEPFM, ("num_buckets: 1000", 'num_buckets: 500 embedding_name: "e_x"'),
     ("hash_bucket_size: 500", 'hash_bucket_size: 500 embedding_name: "e"'),
     ('    group_name: "fm"\n    feature_names: ["user_id", "item_id", "price"]', '    group_name: "fm" embedding_name_suffix: "x"\n    feature_names: ["item_id"]'),
     "29: feature_configs[0].id_feature.embedding_name: table 'e_x' would be reached with embedding_name_suffix '' (feature 'user_id') and 'x' (feature 'item_id')"),
    # Model.
    ("fm widths", DEEPFM, ("embedding_dim: 16\n    num_buckets", "embedding_dim: 8\n    num_buckets"),
     "62: model_config.feature_groups[1].feature_names: FM multiplies the features of group 'fm', so they need one width, not 16 (item_id, price) and 8 (user_id)"),
    ("fm from deep", DEEPFM, ('  feature_groups {\n    group_name: "fm"\n    feature_names: ["user_id", "item_id", "price"]\n    group_type: DEEP\n  }\n', ""),
     "62: model_config.feature_groups[1].feature_names: FM multiplies the features of group 'deep', so they need one width, not 16 (user_id, item_id, price) and 1 (age)"),
    ("no layers", DEEPFM, ("final { hidden_units: [16] }", "final { }"),
     "72: model_config.deepfm.final.hidden_units: is missing: the MLP has no layers"),
    ("zero units", DEEPFM, ("[64, 32]", "[64, 0]"), "71: model_config.deepfm.deep.hidden_units[1]: is 0, must be at least 1"),
    ("dropout count", DEEPFM, ("[64, 32]", "[64, 32] dropout_ratio: [0.1, 0.2, 0.3]"),
     "71: model_config.deepfm.deep.dropout_ratio: has 3 values for 2 layers, must be one for all or one per layer"),
    ("dropout 1", DEEPFM, ("[64, 32]", "[64, 32] dropout_ratio: 1"),
     "71: model_config.deepfm.deep.dropout_ratio[0]: is 1, must be at least 0 and below 1"),
    ("two norms", DEEPFM, ("[64, 32]", "[64, 32] use_bn: true use_ln: true"),
     "71: model_config.deepfm.deep.use_ln: use_bn and use_ln exclude each other"),
    ("activation", DEEPFM, ("[64, 32]", '[64, 32] activation: "nn.Relu"'),
     "71: model_config.deepfm.deep.activation: is 'nn.Relu', torch has no such activation; did you mean 'nn.ReLU'?"),
    ("bare activation", DEEPFM, ("[64, 32]", '[64, 32] activation: "ReLU"'),
     "71: model_config.deepfm.deep.activation: is 'ReLU', must be a class path; did you mean 'nn.ReLU'?"),
    ("tower input", DIN, ('towers { input: "deep"', 'towers { input: "deap"'),
     "52: model_config.multi_tower_din.towers[0].input: there is no feature group 'deap'; did you mean 'deep'?"),
    ("din tower on deep", DIN, ('din_towers { input: "seq"', 'din_towers { input: "deep"'),
     "53: model_config.multi_tower_din.din_towers[0].input: group 'deep' is DEEP, but MultiTowerDIN needs it to be SEQUENCE here"),
    ("tower on a sequence", DIN, ('towers { input: "deep"', 'towers { input: "seq"'),
     "52: model_config.multi_tower_din.towers[0].input: group 'seq' is SEQUENCE, but MultiTowerDIN needs it to be DEEP or WIDE here"),
    ("din query too wide", DIN, ('["item", "click__item", "click__price"]', '["item", "user", "click__item"]'),
     "53: model_config.multi_tower_din.din_towers[0].input: the query is 16 wide, wider than the sequence with 8"),
    ("din without query", DIN, ('["item", "click__item", "click__price"]', '["click__item"]'),
     "53: model_config.multi_tower_din.din_towers[0].input: din_encoder compares the sequence with a query, and the group has none"),
    ("custom path", DEEPFM, ("deepfm {\n    deep { hidden_units: [64, 32] }\n    final { hidden_units: [16] }\n  }",
     'custom_model { class_path: "TwoHead" }'),
     "70: model_config.custom_model.class_path: is 'TwoHead', must be package.module.Class"),
    # Objectives.
    ("no loss", DEEPFM, (LOSS, ""), "54: model_config.losses: is missing: there is nothing to learn"),
    ("empty loss", DEEPFM, (LOSS, "losses {}"), "75: model_config.losses[0]: is empty: choose a loss"),
    ("loss twice", DEEPFM, (LOSS, LOSS + "\n" + LOSS), "76: model_config.losses[1].binary_cross_entropy: loss binary_cross_entropy is given twice"),
    ("classes for BCE", DEEPFM, ("  metrics { auc {} }", "  num_class: 2"),
     "75: model_config.losses[0].binary_cross_entropy: binary_cross_entropy needs num_class 1, but it is 2"),
    ("classes for softmax", DEEPFM, (LOSS, "losses { softmax_cross_entropy {} }"),
     "75: model_config.losses[0].softmax_cross_entropy: softmax_cross_entropy needs num_class at least 2, but it is 1 (the default)"),
    ("classes for jrc", DIN, ("softmax_cross_entropy {}", 'jrc_loss { session_name: "user" }'), ('num_class: 2\n  metrics { auc {} }\n  metrics { grouped_auc { grouping_key: "user" } }', "num_class: 3"),
     "57: model_config.losses[0].jrc_loss: jrc_loss needs num_class 2, but it is 3"),
    ("jrc session", DIN, ("softmax_cross_entropy {}", 'jrc_loss { session_name: "usr" }'),
     "59: model_config.losses[0].jrc_loss.session_name: there is no feature 'usr'; did you mean 'user'?"),
    ("jrc without session", DIN, ("softmax_cross_entropy {}", "jrc_loss {}"),
     "59: model_config.losses[0].jrc_loss.session_name: is missing"),
    ("focal alpha", DEEPFM, (LOSS, "losses { binary_focal_loss { alpha: 1 } }"),
     "75: model_config.losses[0].binary_focal_loss.alpha: is 1, must be above 0 and below 1"),
    ("smoothing", DEEPFM, (LOSS, "losses { binary_cross_entropy { label_smoothing: 1 } }"),
     "75: model_config.losses[0].binary_cross_entropy.label_smoothing: is 1, must be at least 0 and below 1"),
    ("mse of BCE", DEEPFM, ("metrics { auc {} }", "metrics { mean_squared_error {} }"),
     "74: model_config.metrics[0].mean_squared_error: mean_squared_error needs a regression, which binary_cross_entropy does not give"),
    ("auc of l2", DEEPFM, (LOSS, "losses { l2_loss {} }"),
     "74: model_config.metrics[0].auc: auc needs probabilities, which l2_loss does not give"),
    ("recall", DEEPFM, ("metrics { auc {} }", "metrics { recall_at_k {} }"),
     "74: model_config.metrics[0].recall_at_k: recall_at_k is for two-tower models only, not for DeepFM"),
    ("metric twice", DEEPFM, ("metrics { auc {} }", "metrics { auc {} } metrics { auc {} }"),
     "74: model_config.metrics[1].auc: metric auc is given twice"),
    ("auc classes", DIN, ("num_class: 2", "num_class: 3"),
     "57: model_config.metrics[0].auc: auc takes at most 2 classes, but num_class is 3"),
    ("grouping key", DEEPFM, ("metrics { auc {} }", 'metrics { grouped_auc { grouping_key: "user" } }'),
     "74: model_config.metrics[0].grouped_auc.grouping_key: there is no feature 'user'; did you mean 'user_id'?"),
    ("grouping by numbers", DEEPFM, ("metrics { auc {} }", 'metrics { grouped_auc { grouping_key: "age" } }'),
     "74: model_config.metrics[0].grouped_auc.grouping_key: feature 'age' holds plain numbers, must hold ids"),
    ("sample ratio", DEEPFM, ("metrics { auc {} }", "metrics { xauc { sample_ratio: 2 } }"), (LOSS, "losses { l2_loss {} }"),
     "74: model_config.metrics[0].xauc.sample_ratio: is 2, must be above 0 and at most 1"),
    ("train metric decay", DEEPFM, ("metrics { auc {} }", "train_metrics { auc {} decay_step: 0 }"),
     "74: model_config.train_metrics[0].decay_step: is 0, must be at least 1"),
    ("pareto", DEEPFM, (LOSS, LOSS + " use_pareto_loss_weight: true"),
     "75: model_config.use_pareto_loss_weight: is for models with several tasks, DeepFM has one"),
]  # fmt: skip


@pytest.fixture
def problems_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def problems_of(text, *changes, **options):
        write(tmp_path / "c.config", text, *changes)
        with pytest.raises((ConfigError, Unsupported)) as caught:
            prepare("c.config", **options)
        return caught.value

    return problems_of


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_wrong_config(problems_of, case):
    _, text, *changes, first = case
    error = problems_of(text, *changes)
    assert str(error).splitlines()[0] == f"c.config:{first}"
    assert error.exit_code == 2


MODEL_OF_LATER = (
    "deepfm {\n    deep { hidden_units: [64, 32] }\n    final { hidden_units: [16] }\n  }",
    "hstu_match {}",
)
LATER = [
    ("hstu_match", DEEPFM, MODEL_OF_LATER, "70: model_config.hstu_match: model HSTUMatch comes with a later version"),
    ("odps", DEEPFM, ("ParquetDataset", "OdpsDataset"), ("data/train-*.parquet", "odps://p/tables/t"), ("data/eval.parquet", ""),
     "19: data_config.dataset_type: reader OdpsDataset comes with a later version"),
    ("odps path", DEEPFM, ("data/train-*.parquet", "odps://p/tables/t"),
     "2: train_input_path: reader OdpsDataset comes with a later version"),
    ("feature store", DEEPFM, ("num_epochs: 1", "num_epochs: 1 delta_embedding_dump_config { feature_store_config {} }"),
     "14: train_config.delta_embedding_dump_config.feature_store_config: is for a feature store of Alibaba Cloud, which this version does not write to"),
]  # fmt: skip


@pytest.mark.parametrize("case", LATER, ids=lambda case: case[0])
def test_parts_of_later_versions_are_unsupported_and_nothing_else_is_said(problems_of, case):
    _, text, *changes, first = case
    error = problems_of(text, *changes)
    assert isinstance(error, Unsupported)
    assert error.exit_code == 2
    lines = [line for line in str(error).splitlines() if not line.startswith("  ")]
    assert lines == [f"c.config:{first}"]


def test_unsupported_and_wrong_together_is_a_config_error(problems_of):
    error = problems_of(DEEPFM, MODEL_OF_LATER, ("num_epochs: 1", ""))
    assert isinstance(error, ConfigError)
    assert "later version" in str(error)
    assert "num_epochs: is missing" in str(error)


def test_all_problems_come_together_in_line_order(problems_of):
    error = problems_of(
        DEEPFM,
        ("num_epochs: 1", ""),
        ("batch_size: 256", "batch_size: 0"),
        ("user:user_id", "usr:user_id"),
        ('"price", "age"]', '"price", "agge"]'),
        (LOSS, ""),
    )
    lines = [line for line in str(error).splitlines() if not line.startswith("  ")]
    assert [int(line.split(":")[1]) for line in lines] == [5, 18, 27, 54, 67]


def test_a_typo_is_not_followed_by_problems_that_come_from_it(problems_of):
    for change, count in [
        (("deepfm {", "deepfn {"), 1),
        (("num_buckets: 1000", "num_bucket: 1000"), 1),
        (('feature_name: "user_id"', 'feature_nam: "user_id"'), 1),
        (("adam_optimizer", "adamm_optimizer"), 1),
        ((LOSS, "losses { binary_crossentropy {} }"), 1),
        (("hidden_units: [64, 32]", "hiden_units: [64, 32]"), 1),
        (('label_fields: "clk"', 'label_field: "clk"'), 1),
        (("model_config {", "model_confg {"), 1),
        (("train_config {", "train_confg {"), 1),
        (("data_config {", "data_confg {"), 1),
        (("feature_configs {", "feature_config {"), 1),
        (('model_dir: "run"', 'model_dri: "run"'), 1),
        (('group_name: "wide"', 'group_nam: "wide"'), 1),
    ]:
        error = problems_of(DEEPFM, change)
        lines = [line for line in str(error).splitlines() if not line.startswith("  ")]
        assert len(lines) == count, lines
        assert "did you mean" in lines[0]


def test_correct_configs_have_no_problem_and_no_warning(tmp_path):
    for text in (DEEPFM, DIN):
        assert prepare(write(tmp_path / "c.config", text)).warnings == ()


WARNINGS = [
    (DEEPFM, ("lr: 0.001", "lr: 1e20"), "1e+20 is a very high learning rate"),
    (DEEPFM, ('group_name: "fm"', 'group_name: "fmm"'), ('"price", "age"]', '"price"]'),
     "DeepFM does not read group 'fmm'; did you mean 'fm'?"),
    (DEEPFM, ('"price", "age"]', '"price"]'), "'age' is read from the data, but in no feature group"),
    (DEEPFM, ('label_fields: "clk"', 'label_fields: "age"'), "label 'age' is also a feature"),
    (DEEPFM, ('expression: "user:age"', 'expression: "user:age" embedding_dim: 8'), "enters the model as plain numbers"),
    (DEEPFM, ("num_buckets: 1000", "num_buckets: 1000 hash_bucket_size: 7"), "hash_bucket_size sets the table size"),
    (DEEPFM, ("num_buckets: 1000", "num_buckets: 1000 embedding_constraints {}"), "placement constraints have an effect in several processes or on a GPU only"),
    (DEEPFM, ("num_epochs: 1", "num_epochs: 1 grad_clipping { enable_global_grad_clip: true }"), "the norm is always that of the whole batch"),
    (DEEPFM, (LOSS, LOSS + " kernel: TRITON"), "TRITON has no effect"),
    (DEEPFM, ("num_workers: 2", "sample_mask_prob: 0.1"), "no feature has use_mask: true"),
    (DEEPFM, ('label_fields: "clk"', 'label_fields: ["clk", "buy"]'), "'buy' has no effect: DeepFM has one task"),
    (DEEPFM, (LOSS, "losses { binary_cross_entropy {} weight: 0 }"), "is 0: nothing is learnt from it"),
    (DEEPFM, ("num_buckets: 1000", "num_buckets: 1000 sequence_length: 5"), "has no effect: feature 'user_id' is no sequence"),
    (DEEPFM, ("num_epochs: 1", 'num_epochs: 1 fine_tune_ckpt_param_map: "m.txt"'), "has no effect without fine_tune_checkpoint"),
    (DEEPFM, ("num_epochs: 1", "num_epochs: 1 save_checkpoints_epochs: 1 save_checkpoints_steps: 5"),
     "since save_checkpoints_epochs is set"),
    (DEEPFM, (LOSS, "losses { softmax_cross_entropy {} }\n  num_class: 3"), ("metrics { auc {} }", ""), ("final { hidden_units: [16] }", ""),
     "the wide and FM parts add one number to the logits of all 3 classes alike"),
]  # fmt: skip


@pytest.mark.parametrize("case", WARNINGS, ids=lambda case: case[-1][:30])
def test_odd_configs_warn(tmp_path, case):
    text, *changes, words = case
    pipeline = prepare(write(tmp_path / "c.config", text, *changes), log_warnings=False)
    assert any(words in line for line in pipeline.warning_lines()), pipeline.warning_lines()


def test_serving_needs_no_training_sections(tmp_path):
    text = DEEPFM[DEEPFM.index("data_config") :].replace('  label_fields: "clk"\n', "")
    path = write(tmp_path / "c.config", text)
    assert prepare(path, for_serving=True).warnings == ()
    with pytest.raises(ConfigError, match="train_config: is missing"):
        prepare(path)


def test_vocab_file_sizes(tmp_path, problems_of):
    (tmp_path / "words.txt").write_text("a\nb\nc\n")
    error = problems_of(
        DEEPFM, ("num_buckets: 1000", 'vocab_file: "words.txt" default_bucketize_value: 3')
    )
    assert "is 3, but the table has 3 rows" in str(error)
    (tmp_path / "words.txt").write_text("a 5\nb 9\n")
    error = problems_of(
        DEEPFM, ("num_buckets: 1000", 'vocab_file: "words.txt" default_bucketize_value: 10')
    )
    assert "is 10, but the table has 10 rows" in str(error)
    error = problems_of(DEEPFM, ("num_buckets: 1000", 'vocab_file: "words.txt"'))
    assert "vocab_file: needs default_bucketize_value" in str(error)


def test_position_falls_back_to_the_part_around():
    source = SourceMap("c.config", {"a": 3, "a.b[1]": 5})
    assert source.position("a.b[1].c.d") == "c.config:5"
    assert source.position("a.b[0].c") == "c.config:3"
    assert source.position("x") == "c.config:1"
    source.mark("a.b[1]", "--set")
    assert source.position("a.b[1].c") == "--set"
    assert source.position("a.b[10]") == "c.config:3"
