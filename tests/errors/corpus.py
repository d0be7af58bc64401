# ruff: noqa: E501
"""The corpus of wrong inputs: what is wrong, how to make it, what is said about it.

``docs/errors.md`` is made of it: ``python tests/errors/errors_page.py``.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from errors_runner import CLICKS, DEEPFM, DIN, ROWS, Case
from google.protobuf import json_format, text_format

from tzrec.protos.pipeline_pb2 import EasyRecConfig

# The same but for what is known by: the shorter names keep a case on few lines.
flags = functools.partial(Case, known="flags", run="")
config = functools.partial(Case, known="config")
files = functools.partial(Case, known="files", code=3)
rows = functools.partial(Case, known="rows", code=3)
run = functools.partial(Case, known="run", code=4)

LOSS = "losses { binary_cross_entropy {} }"
AUC = "metrics { auc {} }"
EPOCHS = "num_epochs: 1"
ADAM = "adam_optimizer { lr: 0.001 }"
ADAGRAD = "adagrad_optimizer { lr: 0.001 }"
CONSTANT = "constant_learning_rate {}"
BUCKETS = "num_buckets: 1000"
PREDICT = "--input data/eval.parquet --output out"
CSV = (
    ('"data/train-*.parquet"', '"data/clicks.csv"'),
    ('"data/eval.parquet"', '""'),
    ("dataset_type: ParquetDataset", "dataset_type: CsvDataset with_header: true"),
)
HEAD = "user_id,item_id,price,age,clk\n"


def text_file(name, content):
    """Makes a file of text or bytes."""

    def make(root: Path):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def table(name, columns):
    """Makes a Parquet file of the usual columns, some of them changed."""

    def make(root: Path):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        kept = {k: v for k, v in {**CLICKS, **columns}.items() if v is not None}
        pq.write_table(pa.table(kept), root / name)

    return make


def both(*makes):
    """Makes several things."""

    def make(root: Path):
        for one in makes:
            one(root)

    return make


def json_config(old, new):
    """Makes ``c.json`` with a text replaced."""

    def make(root: Path):
        whole = json_format.MessageToJson(text_format.Parse(DEEPFM, EasyRecConfig()))
        assert old in whole
        (root / "c.json").write_text(whole.replace(old, new, 1))

    return make


AGE = '  raw_feature {\n    feature_name: "age"\n    expression: "user:age"\n  }'
NUMBER = 'feature_name: "age"'
IDS = f"{NUMBER} embedding_dim: 16 hash_bucket_size: 5"


def generate(feature, *edits, mode="FG_DAG"):
    """Edits that generate the feature ``age`` otherwise."""
    return (("FG_NONE", mode), (AGE, f"  {feature}"), *edits)


def cut(name, keep):
    """Cuts a file short."""

    def make(root: Path):
        path = next(root.glob(name))
        path.write_bytes(path.read_bytes()[:keep])

    return make


def one(value, row=40, kind=None):
    """A column in which one row is odd."""

    def of(name):
        values = CLICKS[name].to_pylist()
        values[row] = value
        return {name: pa.array(values, kind)}

    return of


# fmt: off
CORPUS = {
    "The command line": [
        flags("no such command", "tzrec: unknown command 'trian'; did you mean 'train'?", run="trian"),
        flags("no such flag", "tzrec: unknown flag '--verbos'", run="--verbos"),
        flags("no config", "tzrec train: which config? give the CONFIG file", run="train"),
        flags("two configs", "tzrec train: give one CONFIG, not two", run="train a.config --pipeline-config-path b.config"),
        flags("a second argument", "tzrec train: unexpected argument 'd.config'", run="train c.config d.config"),
        flags("misspelt flag", "tzrec train: unknown flag --train_input_pth; did you mean '--train-input-path'?", run="train c.config --train_input_pth x"),
        flags("a flag that does not exist", "tzrec train: unknown flag --no_such_flag", run="train c.config --no_such_flag 7"),
        flags("a switch with a value", "tzrec train: unexpected argument 'True'", run="train c.config --continue_train True"),
        flags("a flag without its value", "tzrec train: argument --model-dir: expected one argument", run="train c.config --model-dir"),
        flags("a flag cut short", "tzrec train: unknown flag --model; did you mean '--model-dir'?", run="train c.config --model x"),
        flags("a flag of another command", "tzrec train: unknown flag --export-dir", run="train c.config --export-dir x"),
        flags("a word that is no choice", "tzrec train: argument --on-mismatch: invalid choice: 'remapp' (choose from …); did you mean 'remap'?", run="train c.config --on-mismatch remapp"),
        flags("eval: flag of training", "tzrec eval: unknown flag --continue", run="eval c.config --continue"),
        flags("export without a directory", "tzrec export: the following arguments are required: --export-dir", run="export c.config"),
        flags("a type of tables that there is not", "quantisation 'INT9' is not one of '', 'FP32', 'FP16', 'INT8', 'INT4', 'INT2'; did you mean 'INT8'?", run="export c.config --export-dir export --quantize INT9"),
        flags("time kernels of an export that compiles none", "autotune is for compiled exports", run="export c.config --export-dir export --autotune"),
        flags("predict without an input", "tzrec predict: the following arguments are required: --input/--predict-input-path", run="predict export --output out"),
        flags("predict without an output", "tzrec predict: the following arguments are required: --output/--predict-output-path", run="predict export --input data/eval.parquet"),
        flags("predict without a model", "which model? give an exported directory (--scripted_model_path) or a config (--pipeline_config_path)", run=f"predict {PREDICT}"),
        flags("predict: neither export nor config", "tzrec predict: 'nothing' is neither an exported directory nor a config file", run=f"predict nothing {PREDICT}"),
        flags("predict: no exported model in the directory", "'data' holds no exported model (no scripted_model.pt)", run=f"predict data {PREDICT}"),
        flags("predict: an edit of an export", "tzrec predict: --set is for configs; an export carries its own config", run=f"predict data {PREDICT} --set a=1"),
        flags("predict: a checkpoint for an export", "--checkpoint_path works with a config only", run=f"predict data {PREDICT} --checkpoint-path run"),
        flags("predict: threads for a checkpoint", "--predict_threads works with an exported model only", run=f"predict c.config {PREDICT} --predict-threads 2"),
        flags("predict: batch size 0", "tzrec predict: argument --batch-size: 0 is too small, must be at least 1", run=f"predict export {PREDICT} --batch-size 0"),
        flags("predict: batch size in words", "tzrec predict: argument --batch-size: 'ten' is not a whole number", run=f"predict export {PREDICT} --batch-size ten"),
        flags("predict: negative steps", "tzrec predict: argument --predict-steps: -1 is too small, must be at least 1", run=f"predict export {PREDICT} --predict-steps -1"),
        flags("data: unknown data set", "tzrec data convert: argument dataset: invalid choice: 'frape' (choose from …); did you mean 'frappe'?", run="data convert frape a b"),
        flags("data: no sub-command", "tzrec data: the following arguments are required: ACTION", run="data"),
        flags("data: source is missing", "nowhere: has no train.parquet, valid.parquet, test.parquet", run="data convert frappe nowhere out", code=3),
        flags("demo: misspelt flag", "tzrec demo: unknown flag --qick; did you mean '--quick'?", run="demo --qick"),
        flags("doctor: an argument", "tzrec doctor: unexpected argument 'c.config'", run="doctor c.config"),
        flags("check: misspelt flag", "tzrec check: unknown flag --dta; did you mean '--data'?", run="check c.config --dta"),
        flags("interface: no arguments", "tzrec.train_eval: the following arguments are required: --pipeline_config_path", run="python -m tzrec.train_eval"),
        flags("interface: misspelt flag", "tzrec.train_eval: unknown flag --pipeline_config_pth; did you mean '--pipeline_config_path'?", run="python -m tzrec.train_eval --pipeline_config_pth c.config"),
        flags("interface: a switch with a value", "tzrec.train_eval: unexpected argument 'True'", run="python -m tzrec.train_eval --pipeline_config_path c.config --continue_train True"),
        flags("interface: dashes", "tzrec.eval: unknown flag --pipeline-config-path; did you mean '--pipeline_config_path'?", run="python -m tzrec.eval --pipeline-config-path c.config"),
        flags("interface: predict without a model", "which model? give an exported directory (--scripted_model_path) or a config (--pipeline_config_path)", run="python -m tzrec.predict --predict_input_path a --predict_output_path b"),
        flags("interface: misspelt export flag", "tzrec.export: unknown flag --exportdir; did you mean '--export_dir'?", run="python -m tzrec.export --pipeline_config_path c.config --exportdir x"),
    ],
    "The environment": [
        flags("log level", "environment variable LOG_LEVEL is 'LOUD', must be one of CRITICAL, ERROR, WARNING, INFO, DEBUG", run="train c.config", env={"LOG_LEVEL": "LOUD"}),
        flags("seeds that disagree", "environment variables disagree on the seed: {'PYTHON_RANDOM_SEED': 1, 'TORCH_MANUAL_SEED': 2}", run="train c.config", env={"PYTHON_RANDOM_SEED": "1", "TORCH_MANUAL_SEED": "2"}),
        flags("seed in words", "environment variable TORCH_MANUAL_SEED is 'lucky', not an integer", run="train c.config", env={"TORCH_MANUAL_SEED": "lucky"}),
        flags("rank beyond the world", "environment variable RANK is 2, but WORLD_SIZE is 2: ranks count from 0", run="train c.config", env={"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "x"}),
        flags("two processes without torchrun", "environment variable WORLD_SIZE is 2, but MASTER_ADDR is not set", run="train c.config", env={"WORLD_SIZE": "2"}),
        flags("a flag that is neither 0 nor 1", "environment variable USE_DETERMINISTIC_ALGORITHMS is 'maybe', must be 0 or 1", run="train c.config", env={"USE_DETERMINISTIC_ALGORITHMS": "maybe"}),
        flags("no share of the memory", "environment variable STORAGE_RESERVE_PERCENT is '15', must be a share below 1", run="train c.config", env={"STORAGE_RESERVE_PERCENT": "15"}),
        flags("timeout 0", "environment variable PREDICT_QUEUE_TIMEOUT is 0, must be at least 1", run="predict data --input a --output b", env={"PREDICT_QUEUE_TIMEOUT": "0"}),
        flags("timeout in words", "environment variable PROCESS_GROUP_TIMEOUT_SECONDS is '10m', not an integer", run="train c.config", env={"PROCESS_GROUP_TIMEOUT_SECONDS": "10m"}),
    ],
    "The config file": [
        config("no such file", "config file 'c.confg' does not exist; did you mean 'c.config'?", run="train c.confg"),
        config("a folder", "config file 'data' is a folder", run="train data"),
        config("a data file", "config file 'data/eval.parquet' is not UTF-8 text (byte 7)", run="train data/eval.parquet"),
        config("not UTF-8", "config file 'c.config' is not UTF-8 text (byte 12)", make=text_file("c.config", b'model_dir: "\xff"\n')),
        config("empty", "config file 'c.config' is empty", make=text_file("c.config", "")),
        config("no such scheme", "config file 'nos://c.config' cannot be read: Protocol not known: nos", run="train nos://c.config"),
        config("misspelt field", "c.config:18: data_config.batchsize: DataConfig has no field 'batchsize'; did you mean 'batch_size'?", edits=(("batch_size", "batchsize"),)),
        config("field of another message", "c.config:14: train_config.batch_size: TrainConfig has no field 'batch_size'", edits=((EPOCHS, "num_epochs: 1 batch_size: 8"),)),
        config("misspelt model", "c.config:70: model_config.deepfn: ModelConfig has no field 'deepfn'; did you mean 'deepfm'?", edits=(("deepfm {", "deepfn {"),)),
        config("misspelt optimizer", "c.config:11: train_config.dense_optimizer.adamm_optimizer: DenseOptimizer has no field 'adamm_optimizer'; did you mean 'adam_optimizer'?", edits=((ADAM, "adamm_optimizer { lr: 0.001 }"),)),
        config("misspelt loss", "c.config:75: model_config.losses[0].binary_crossentropy: LossConfig has no field 'binary_crossentropy'; did you mean 'binary_cross_entropy'?", edits=((LOSS, "losses { binary_crossentropy {} }"),)),
        config("misspelt enum", "c.config:58: model_config.feature_groups[0].group_type: 'WYDE' is not a FeatureGroupType; did you mean 'WIDE'?", edits=(("group_type: WIDE", "group_type: WYDE"),)),
        config("a brace is missing at the end", "c.config:54: model_config: the '}' of 'model_config' (opened in line 54) is missing", edits=((LOSS + "\n}", LOSS),)),
        config("a brace is missing inside", "c.config:24: feature_configs: the '}' of 'feature_configs' (opened in line 24) is missing", edits=(("    num_buckets: 1000\n  }", "    num_buckets: 1000\n"),)),
        config("a brace too many", "c.config:76: unexpected '}': nothing is open here", edits=((LOSS + "\n}", LOSS + "\n}}"),)),
        config("no colon", "c.config:14: train_config.num_epochs: expected ':' or '{' after 'num_epochs', found '1'", edits=((EPOCHS, "num_epochs 1"),)),
        config("quotes not closed", 'c.config:26: feature_configs.id_feature.feature_name: the string that starts with " has no end on its line', edits=(('"user_id"', '"user_id'),)),
        config("text without quotes", 'c.config:21: data_config.label_fields[0]: must be text in quotes: "clk"', edits=(('label_fields: "clk"', "label_fields: clk"),)),
        config("number in quotes", "c.config:18: data_config.batch_size: must be an integer, not text", edits=(("batch_size: 256", 'batch_size: "256"'),)),
        config("fraction for an integer", "c.config:18: data_config.batch_size: must be an integer, not 0.5", edits=(("batch_size: 256", "batch_size: 0.5"),)),
        config("negative for unsigned", "c.config:29: feature_configs[0].id_feature.num_buckets: -1 is out of range, must be at least 0", edits=((BUCKETS, "num_buckets: -1"),)),
        config("too large for the field", "c.config:18: data_config.batch_size: 5000000000 is out of range, must be at most 4294967295", edits=(("batch_size: 256", "batch_size: 5000000000"),)),
        config("word for a bool", "c.config:22: data_config.shuffle: must be true or false, not yes", edits=(("num_workers: 2", "shuffle: yes"),)),
        config("message without braces", "c.config:11: train_config.dense_optimizer.adam_optimizer: is a message: write adam_optimizer { ... }", edits=((ADAM, "adam_optimizer: 0.001"),)),
        config("list where one value goes", "c.config:18: data_config.batch_size: must be an integer, not a list", edits=(("batch_size: 256", "batch_size: [1, 2]"),)),
        config("two models", "c.config:70: model_config.deepfm: 'multi_tower' was already chosen in line 70, and only one model is possible", edits=(("deepfm {", "multi_tower { final { hidden_units: 4 } } deepfm {"),)),
        config("two mistakes at once", "c.config:18: data_config.batch_size: is 0, must be at least 1", edits=(("batch_size: 256", "batch_size: 0"), ("group_type: WIDE", "group_type: DEEP")), messages=2),
        config("a mistake in a feature hides nothing", "c.config:29: feature_configs[0].id_feature.num_bucket: IdFeature has no field 'num_bucket'; did you mean 'num_buckets'?", edits=((BUCKETS, "num_bucket: 1000"), ('"price", "age"]', '"price", "agge"]')), messages=2),
        config("JSON: not JSON", "c.json:1: expected a field name in double quotes, found \"'\"", run="train c.json", make=text_file("c.json", "{'a': 1}")),
        config("JSON: a list", "c.json:1: the file must hold one JSON object { ... }", run="train c.json", make=text_file("c.json", "[1]")),
        config("JSON: unknown field", "c.json:22: data_config.batchSiz: DataConfig has no field 'batchSiz'; did you mean 'batchSize'?", run="train c.json", make=json_config("batchSize", "batchSiz")),
        config("JSON: text for a number", "c.json:22: data_config.batch_size: must be an integer, not many", run="train c.json", make=json_config('"batchSize": 256', '"batchSize": "many"')),
        config("JSON: cut off", "c.json:1: expected a field name in double quotes, found the end of the file", run="train c.json", make=text_file("c.json", '{"model_dir": "x",')),
        config("text format in a .json file", "c.json:1: expected a value, found 'model_dir'", run="train c.json", make=text_file("c.json", 'model_dir: "x"')),
        config("JSON in a .config file", "c.config:1: expected a field name, found '{'", make=text_file("c.config", '{"model_dir": "x"}')),
    ],
    "Edits": [
        config("--set without a value", "--set: 'data_config.batch_size' sets nothing: write path=value", run="train c.config --set data_config.batch_size"),
        config("--set of no such field", "--set: train_config.num_stepz: TrainConfig has no field 'num_stepz'; did you mean 'num_steps'?", run="train c.config --set train_config.num_stepz=6"),
        config("--set of text to a number", "--set: data_config.batch_size: must be an integer, not many", run="train c.config --set data_config.batch_size=many"),
        config("--set beyond the list", "--set: feature_configs[9].id_feature.embedding_dim: 'feature_configs' has 4 elements, there is no [9]", run="train c.config --set feature_configs[9].id_feature.embedding_dim=4"),
        config("--set of a list without an index", "--set: feature_configs.id_feature.embedding_dim: 'feature_configs' is a list: say which elements", run="train c.config --set feature_configs.id_feature.embedding_dim=4"),
        config("--set of no feature of that name", "--set: feature_configs[id_feature.feature_name=user].id_feature.embedding_dim: no element of 'feature_configs' has id_feature.feature_name 'user'; did you mean 'user_id'?", run="train c.config --set feature_configs[id_feature.feature_name=user].id_feature.embedding_dim=4"),
        config("--set out of range", "--set: data_config.batch_size: is 0, must be at least 1", run="train c.config --set data_config.batch_size=0"),
        config("--set of another model", "--set: model_config.multi_tower.final.hidden_units: 'multi_tower' is not the model that is chosen, 'deepfm' is", run="train c.config --set model_config.multi_tower.final.hidden_units=4"),
        config("JSON edit: unknown key", "--edit_config_json: train_config.num_stepz: TrainConfig has no field 'num_stepz'; did you mean 'num_steps'?", run="train c.config --edit_config_json '{\"train_config.num_stepz\": 6}'"),
        config("JSON edit: not JSON", "--edit_config_json: not JSON: … at character 2 of '{a: 1}'", run="train c.config --edit_config_json '{a: 1}'"),
        config("JSON edit: no object", "--edit_config_json: must be a JSON object, not [1]", run="train c.config --edit_config_json '[1]'"),
        config("JSON edit: null", "--edit_config_json: model_dir: null is no value", run="train c.config --edit_config_json '{\"model_dir\": null}'"),
        config("JSON edit: paths and values differ in number", "--edit_config_json: 'train_config.num_steps;train_config.num_epochs' holds 2 paths, but '1' holds 1", run='train c.config --edit_config_json \'{"train_config.num_steps;train_config.num_epochs": "1"}\''),
    ],
    "Sections and training": [
        config("no model_config", "c.config:54: model_confg: EasyRecConfig has no field 'model_confg'; did you mean 'model_config'?", edits=(("model_config {", "model_confg {"),)),
        config("no model_config at all", "c.config:1: model_config: is missing: write model_config { ... }", run="train c.config --set eval_config.num_steps=1", edits=((DEEPFM[DEEPFM.index("model_config {"):], ""),)),
        config("no model chosen", "c.config:54: model_config: no model is chosen", edits=(("deepfm {\n    deep { hidden_units: [64, 32] }\n    final { hidden_units: [16] }\n  }", ""),)),
        config("no train_config", "c.config:5: train_confg: EasyRecConfig has no field 'train_confg'; did you mean 'train_config'?", edits=(("train_config {", "train_confg {"),)),
        config("misspelt feature_configs", "c.config:24: feature_config: EasyRecConfig has no field 'feature_config'; did you mean 'feature_configs'?", edits=(("feature_configs {", "feature_config {"),) * 4),
        config("no data path", "c.config:1: train_input_path: is missing: write train_input_path or give --train-input-path", edits=(('train_input_path: "data/train-*.parquet"', ""),)),
        config("no model_dir", "c.config:1: model_dir: is missing: write model_dir or give --model-dir", edits=(('model_dir: "run"', ""),)),
        config("steps and epochs", "c.config:14: train_config.num_steps: num_steps (6) and num_epochs (1) are both set", edits=((EPOCHS, "num_epochs: 1 num_steps: 6"),)),
        config("neither steps nor epochs", "c.config:5: train_config.num_epochs: is missing: neither num_epochs nor num_steps says when training ends", edits=((EPOCHS, ""),)),
        config("no sparse optimizer", "c.config:5: train_config.sparse_optimizer: is missing", edits=((f"  sparse_optimizer {{\n    {ADAGRAD}\n    {CONSTANT}\n  }}\n", ""),)),
        config("no dense optimizer", "c.config:5: train_config.dense_optimizer: is missing", edits=((f"  dense_optimizer {{\n    {ADAM}\n    {CONSTANT}\n  }}\n", ""),)),
        config("no learning rate schedule", "c.config:6: train_config.sparse_optimizer: no learning rate schedule is chosen", edits=((CONSTANT, ""),)),
        config("optimizer of the other kind", "c.config:11: train_config.dense_optimizer.rowwise_adagrad_optimizer: DenseOptimizer has no field 'rowwise_adagrad_optimizer'; did you mean 'adagrad_optimizer'?", edits=((ADAM, "rowwise_adagrad_optimizer { lr: 0.001 }"),)),
        config("negative learning rate", "c.config:7: train_config.sparse_optimizer.adagrad_optimizer.lr: is -1, must be at least 0", edits=(("lr: 0.001", "lr: -1"),)),
        config("learning rate 1e20", "warning: c.config:7: train_config.sparse_optimizer.adagrad_optimizer.lr: 1e+20 is a very high learning rate", edits=(("lr: 0.001", "lr: 1e20"),), code=0, run="check c.config"),
        config("learning rate not a number", "c.config:7: train_config.sparse_optimizer.adagrad_optimizer.lr: is nan, must be at least 0", edits=(("lr: 0.001", "lr: nan"),)),
        config("sharding type", "c.config:29: feature_configs[0].id_feature.embedding_constraints.sharding_types[0]: is 'rowwise', must be one of data_parallel, table_wise, column_wise, row_wise, table_row_wise, table_column_wise, grid_shard; did you mean 'row_wise'?", edits=((BUCKETS, BUCKETS + ' embedding_constraints { sharding_types: "rowwise" }'),)),
        config("mixed precision", "c.config:14: train_config.mixed_precision: is 'BF17', must be one of BF16, FP16, FP32; did you mean 'BF16'?", edits=((EPOCHS, 'num_epochs: 1 mixed_precision: "BF17"'),)),
        config("decay without a size", "c.config:8: train_config.sparse_optimizer.exponential_decay_learning_rate.decay_size: is missing: after how many steps the rate decays", edits=((CONSTANT, "exponential_decay_learning_rate {}"),)),
        config("delta dumps by steps and by minutes", "c.config:14: train_config.delta_embedding_dump_config.dump_interval_minutes: dump_interval_steps (5) and dump_interval_minutes (9) are both set", edits=((EPOCHS, "num_epochs: 1 delta_embedding_dump_config { dump_interval_steps: 5 dump_interval_minutes: 9 }"),)),
        config("delta dumps every 0 steps", "c.config:14: train_config.delta_embedding_dump_config.dump_interval_steps: must be at least 1, got 0", edits=((EPOCHS, "num_epochs: 1 delta_embedding_dump_config { dump_interval_steps: 0 }"),)),
        config("delta dumps: prefix with a directory", "c.config:14: train_config.delta_embedding_dump_config.file_prefix: must be the start of a file's name, got 'out/rows'", edits=((EPOCHS, 'num_epochs: 1 delta_embedding_dump_config { file_prefix: "out/rows" }'),)),
        config("delta dumps into a vendor's store", "c.config:14: train_config.delta_embedding_dump_config.feature_store_config: is for a feature store of Alibaba Cloud, which this version does not write to", edits=((EPOCHS, "num_epochs: 1 delta_embedding_dump_config { feature_store_config {} }"),)),
        config("early stop on an unknown metric", "c.config:14: train_config.early_stop.metric: there is no metric 'aucc'; did you mean 'auc'?", edits=((EPOCHS, 'num_epochs: 1 early_stop { metric: "aucc" }'),)),
        config("early stop without evaluation", "c.config:14: train_config.early_stop: early_stop watches a metric, but eval_input_path is empty, so nothing is evaluated", edits=((EPOCHS, 'num_epochs: 1 early_stop { metric: "auc" }'), ("data/eval.parquet", ""))),
        config("best checkpoint without evaluation", "c.config:16: export_config.exporter_type: is best, but eval_input_path is empty, so no checkpoint is evaluated", edits=(("eval_config {}", 'export_config { exporter_type: "best" }'), ("data/eval.parquet", ""))),
        config("best checkpoint by an unknown metric", "c.config:16: export_config.best_exporter_metric: there is no metric 'acc'; did you mean 'auc'?", edits=(("eval_config {}", 'export_config { exporter_type: "best" best_exporter_metric: "acc" }'),)),
        config("clipping type", "c.config:14: train_config.grad_clipping.clipping_type: is 'Normal', must be one of none, norm, value; did you mean 'norm'?", edits=((EPOCHS, 'num_epochs: 1 grad_clipping { clipping_type: "Normal" }'),)),
        config("bad regular expression", "c.config:11: train_config.dense_optimizer.part_optimizers[0].regex_pattern: 'a(' is no regular expression: missing ), unterminated subpattern at position 1", edits=((ADAM, ADAM + ' part_optimizers { regex_pattern: "a(" adam_optimizer {} }'),)),
        config("smoothing constant beyond 1", "c.config:11: train_config.dense_optimizer.rmsprop_optimizer.alpha: is -1, must be between 0 and 1", edits=((ADAM, "rmsprop_optimizer { lr: 0.001 alpha: -1 }"),)),
        config("train metric that never changes", "c.config:75: model_config.train_metrics[0].decay_rate: is 1, must be at least 0 and below 1", edits=((LOSS, "train_metrics { auc {} decay_rate: 1 } " + LOSS),)),
        config("fewer steps than an update takes", "warning: c.config:14: train_config.gradient_accumulation_steps: is 8, but num_steps is 4: no weight changes before the run ends", edits=((EPOCHS, "num_steps: 4 gradient_accumulation_steps: 8"),), run="check c.config", code=0),
        config("accumulation over 0 batches", "c.config:14: train_config.gradient_accumulation_steps: is 0, must be at least 1", edits=((EPOCHS, "num_epochs: 1 gradient_accumulation_steps: 0"),)),
        config("L2 of all rows without L2", "warning: c.config:14: train_config.embedding_l2_all_rows: has no effect: train_config.embedding_l2 is 0", edits=((EPOCHS, "num_epochs: 1 embedding_l2_all_rows: true"),), run="check c.config", code=0),
        config("averaging beyond 1", "c.config:11: train_config.dense_optimizer.ema.decay: is 2, must be at least 0 and below 1", edits=((ADAM, ADAM + " ema { decay: 2 }"),)),
        config("averaged weights that nobody makes", "c.config:16: eval_config.use_dense_ema: is true, but training does not average weights", edits=(("eval_config {}", "eval_config { use_dense_ema: true }"),)),
        config("checkpoints by event time, but no times", "c.config:14: train_config.save_checkpoints_timestamp_interval: is set, but data_config.event_time_field is not, so no row has a time", edits=((EPOCHS, "num_epochs: 1 save_checkpoints_timestamp_interval: 60"),)),
        config("table mismatch that is no word", "c.config:14: train_config.on_table_mismatch: 'REMAPP' is not a TableMismatch; did you mean 'REMAP'?", edits=((EPOCHS, "num_epochs: 1 on_table_mismatch: REMAPP"),)),
        config("batches by cost without a cost", "c.config:17: data_config.sample_cost_field: is missing: batch_cost_size adds up the costs of rows", edits=(("num_workers: 2", "batch_cost_size: 100"),)),
        config("batch of 0 rows", "c.config:18: data_config.batch_size: is 0, must be at least 1", edits=(("batch_size: 256", "batch_size: 0"),)),
        config("negative number of bad rows", "c.config:22: data_config.max_bad_rows: -1 is out of range, must be at least 0", edits=(("num_workers: 2", "max_bad_rows: -1"),)),
        config("fine-tuning map is missing", "c.config:14: train_config.fine_tune_ckpt_param_map: file 'm.txt' does not exist", edits=((EPOCHS, 'num_epochs: 1 fine_tune_checkpoint: "a" fine_tune_ckpt_param_map: "m.txt"'),)),
    ],
    "Features, groups and models": [
        config("feature of a group is not configured", "c.config:67: model_config.feature_groups[2].feature_names[3]: feature 'cat_33' of group 'deep' is not configured", edits=(('"price", "age"]', '"price", "cat_33"]'),)),
        config("feature configured twice", "c.config:34: feature_configs[1].id_feature.feature_name: feature 'user_id' is configured twice, before at feature_configs[0].id_feature", edits=(('"item_id"\n    expression', '"user_id"\n    expression'),), messages=2),
        config("no buckets", "c.config:25: feature_configs[0].id_feature: feature 'user_id' does not say how many ids it has", edits=(("    num_buckets: 1000\n", ""),)),
        config("a hash table without a policy", "c.config:29: feature_configs[0].id_feature.zch: has no eviction policy", edits=((BUCKETS, "zch { zch_size: 100 }"),)),
        config("a hash table of one row", "c.config:29: feature_configs[0].id_feature.zch.zch_size: is 1, must be at least 2", edits=((BUCKETS, "zch { zch_size: 1 lfu {} }"),)),
        config("a filter that is no filter", "c.config:29: feature_configs[0].id_feature.zch.threshold_filtering_func: threshold_filtering_func 'lambda x: open(x)' calls 'open'; it may name one of dynamic_threshold_filter, average_threshold_filter, probabilistic_threshold_filter, or compare counts", edits=((BUCKETS, "zch { zch_size: 100 lfu {} threshold_filtering_func: 'lambda x: open(x)' }"),)),
        config("ids without a row that are no constant", "c.config:29: feature_configs[0].id_feature.dynamicemb.eval_initializer_args.mode: is 'normal', must be constant", edits=((BUCKETS, 'dynamicemb { max_capacity: 100 eval_initializer_args { mode: "normal" } }'),)),
        config("a frozen hash table that starts empty", "warning: c.config:29: feature_configs[0].id_feature.trainable: a frozen table gives no id a row: 'user_id' must come from a checkpoint", edits=((BUCKETS, "zch { zch_size: 100 lfu {} } trainable: false"),), run="check c.config", code=0),
        config("constraints of a zch table", "warning: c.config:29: feature_configs[0].id_feature.embedding_constraints: has no effect: the planner places zch tables by itself, whole or by rows", edits=((BUCKETS, 'zch { zch_size: 100 lfu {} } embedding_constraints { sharding_types: "table_wise" }'),), run="check c.config", code=0),
        config("a hash table on every process", "c.config:29: feature_configs[0].id_feature.embedding_constraints.sharding_types: hash table of 'user_id' cannot be data_parallel", edits=((BUCKETS, 'dynamicemb { max_capacity: 100 } embedding_constraints { sharding_types: "data_parallel" }'),)),
        config("no such score strategy", "c.config:29: feature_configs[0].id_feature.dynamicemb.score_strategy: is 'STEPS', must be STEP, TIMESTAMP, LFU; did you mean 'STEP'?", edits=((BUCKETS, 'dynamicemb { max_capacity: 100 score_strategy: "STEPS" }'),)),
        config("vocabulary larger than the buckets", "c.config:29: feature_configs[0].id_feature.num_buckets: 3 is smaller than the vocabulary (5 words + 2 reserved ids)", edits=((BUCKETS, 'num_buckets: 3 vocab_list: ["a", "b", "c", "d", "e"]'),)),
        config("vocabulary word twice", "c.config:29: feature_configs[0].id_feature.vocab_list: holds 'a' more than once", edits=((BUCKETS, 'vocab_list: ["a", "a"]'),)),
        config("vocabulary file is missing", "c.config:29: feature_configs[0].id_feature.vocab_file: vocabulary v.txt does not exist", edits=((BUCKETS, 'vocab_file: "v.txt" default_bucketize_value: 0'),)),
        config("vocabulary file without a default", "c.config:29: feature_configs[0].id_feature.vocab_file: needs default_bucketize_value, the id of words that are not in the file", edits=((BUCKETS, 'vocab_file: "v.txt"'),), make=text_file("v.txt", "a\nb\n")),
        config("vocabulary file is empty", "c.config:29: feature_configs[0].id_feature.vocab_file: vocabulary v.txt has no words", edits=((BUCKETS, 'vocab_file: "v.txt" default_bucketize_value: 0'),), make=text_file("v.txt", "\n")),
        config("vocabulary file with a word twice", "c.config:29: feature_configs[0].id_feature.vocab_file: vocabulary v.txt:3: 'a' has the ids 0 and 2", edits=((BUCKETS, 'vocab_file: "v.txt" default_bucketize_value: 0'),), make=text_file("v.txt", "a\nb\na\n")),
        config("vocabulary file not UTF-8", "c.config:29: feature_configs[0].id_feature.vocab_file: vocabulary v.txt is not UTF-8 text (byte 3)", edits=((BUCKETS, 'vocab_file: "v.txt" default_bucketize_value: 0'),), make=text_file("v.txt", b"caf\xe9\n")),
        config("vocabulary file is a folder", "c.config:29: feature_configs[0].id_feature.vocab_file: vocabulary data is a folder", edits=((BUCKETS, 'vocab_file: "data" default_bucketize_value: 0'),)),
        config("vocabulary file of mixed form", "c.config:29: feature_configs[0].id_feature.vocab_file: vocabulary v.txt:2: 'b' is unlike the lines before it", edits=((BUCKETS, 'vocab_file: "v.txt" default_bucketize_value: 0'),), make=text_file("v.txt", "a 0\nb\n")),
        config("default id beyond the table", "c.config:29: feature_configs[0].id_feature.fg_encoded_default_value: id 1000 is not in the table of 'user_id' (0 to 999)", edits=((BUCKETS, BUCKETS + ' fg_encoded_default_value: "1000"'),)),
        config("misspelt side", "c.config:27: feature_configs[0].id_feature.expression: unknown side 'usr' in 'usr:user_id'; did you mean 'user'?", edits=(("user:user_id", "usr:user_id"),)),
        config("expression without a side", "c.config:27: feature_configs[0].id_feature.expression: is 'user_id', must be side:column", edits=(("user:user_id", "user_id"),)),
        config("boundaries descend", "c.config:44: feature_configs[2].raw_feature.boundaries[2]: boundaries must ascend, but 2 follows 5", edits=(("[1.0, 5.0, 20.0]", "[1.0, 5.0, 2.0]"),)),
        config("boundaries without embedding_dim", "c.config:41: feature_configs[2].raw_feature.embedding_dim: is missing: feature 'price' has boundaries, so it is embedded", edits=(("    boundaries: [1.0, 5.0, 20.0]\n    embedding_dim: 16\n", "    boundaries: [1.0]\n"),)),
        config("embedding_dim 0", "c.config:28: feature_configs[0].id_feature.embedding_dim: is 0, must be at least 1", edits=(("embedding_dim: 16", "embedding_dim: 0"),)),
        config("initialiser", "c.config:29: feature_configs[0].id_feature.init_fn: init_fn 'uniform,a=0': 'uniform' is no function of torch.nn.init that fills a table; did you mean 'nn.init.uniform_'?", edits=((BUCKETS, BUCKETS + ' init_fn: "uniform,a=0"'),)),
        config("pooling", "c.config:29: feature_configs[0].id_feature.pooling: is 'max', must be one of sum, mean", edits=((BUCKETS, BUCKETS + ' pooling: "max"'),)),
        config("features that share a table differ", "c.config:37: feature_configs[1].id_feature.embedding_name: features 'user_id' and 'item_id' share the table 'e_wide', but their number of rows differs: 1000 and 500", edits=((BUCKETS, BUCKETS + ' embedding_name: "e"'), ("hash_bucket_size: 500", 'hash_bucket_size: 500 embedding_name: "e"'))),
        config("no wide group", "c.config:70: model_config.deepfm: the model needs a feature group named 'wide'; did you mean 'wyde'?", edits=(('group_name: "wide"', 'group_name: "wyde"'),)),
        config("no deep group", "c.config:70: model_config.deepfm: the model needs a feature group named 'deep'; did you mean 'dep'?", edits=(('group_name: "deep"', 'group_name: "dep"'),)),
        config("group of the wrong type", "c.config:55: model_config.feature_groups[0]: group 'wide' is DEEP, but DeepFM needs it to be WIDE here", edits=(("group_type: WIDE", "group_type: DEEP"),)),
        config("group without features", "c.config:55: model_config.feature_groups[0].feature_names: group 'wide' has no features", edits=(('    feature_names: ["user_id", "item_id"]\n', ""),)),
        config("group given twice", "c.config:66: model_config.feature_groups[2].group_name: group 'deep' is configured twice", edits=(('group_name: "fm"', 'group_name: "deep"'),)),
        config("widths differ in FM", "c.config:62: model_config.feature_groups[1].feature_names: FM multiplies the features of group 'fm', so they need one width, not 16 (item_id, price) and 8 (user_id)", edits=(("embedding_dim: 16\n    num_buckets", "embedding_dim: 8\n    num_buckets"),)),
        config("no layers", "c.config:72: model_config.deepfm.final.hidden_units: is missing: the MLP has no layers", edits=(("final { hidden_units: [16] }", "final { }"),)),
        config("activation", "c.config:71: model_config.deepfm.deep.activation: is 'nn.Relu', torch has no such activation; did you mean 'nn.ReLU'?", edits=(("[64, 32]", '[64, 32] activation: "nn.Relu"'),)),
        config("activation that is no activation", "c.config:71: model_config.deepfm.deep.activation: is 'nn.Linear', torch has no such activation; did you mean 'nn.LeakyReLU'?", edits=(("[64, 32]", '[64, 32] activation: "nn.Linear"'),)),
        config("tower of an unknown group", "c.config:52: model_config.multi_tower_din.towers[0].input: there is no feature group 'deap'; did you mean 'deep'?", text=DIN, edits=(('towers { input: "deep"', 'towers { input: "deap"'),)),
        config("sequence group without a sequence", "c.config:48: model_config.feature_groups[1].feature_names: SEQUENCE group 'seq' has no sequence feature", text=DIN, edits=(('["item", "click__item", "click__price"]', '["item"]'),)),
        config("attention without a query", "c.config:53: model_config.multi_tower_din.din_towers[0].input: din_encoder compares the sequence with a query, and the group has none", text=DIN, edits=(('["item", "click__item", "click__price"]', '["click__item"]'),)),
        config("encoder of an unknown group", "c.config:43: model_config.feature_groups[0].sequence_encoders[0].simple_attention.input: there is no sequence group 'hist'; did you mean 'history'?", text=DIN, edits=(('input: "history"', 'input: "hist"'),)),
        config("heads do not divide the width", "c.config:43: model_config.feature_groups[0].sequence_encoders[0].self_attention_encoder.multihead_attn_dim: 10 cannot be divided among 4 heads (num_heads)", text=DIN, edits=(('simple_attention { input: "history" }', "self_attention_encoder { multihead_attn_dim: 10 num_heads: 4 }"),)),
        config("model of a later version", "c.config:70: model_config.hstu_match: model HSTUMatch comes with a later version", edits=(("deepfm {\n    deep { hidden_units: [64, 32] }\n    final { hidden_units: [16] }\n  }", "hstu_match {}"),)),
        config("class that cannot be imported", "model_config.custom_model.class_path: cannot import 'no.such' for the class 'no.such.Model': no module 'no'", known="run", edits=(("deepfm {\n    deep { hidden_units: [64, 32] }\n    final { hidden_units: [16] }\n  }", 'custom_model { class_path: "no.such.Model" }'),)),
    ],
    "Feature generation": [
        config("side misspelt", "c.config:49: feature_configs[3].lookup_feature.map: unknown side 'usr' in 'usr:age'; did you mean 'user'?", edits=generate(f'lookup_feature {{ {NUMBER} map: "usr:age" key: "item:item_id" }}')),
        config("no variables", "c.config:49: feature_configs[3].expr_feature.variables: is missing: write side:column", edits=generate(f'expr_feature {{ {NUMBER} expression: "1 + 1" }}')),
        config("cross of one input", "c.config:49: feature_configs[3].combo_feature: combo_feature 'age' has 1 inputs, needs at least 2", edits=generate(f'combo_feature {{ {IDS} expression: "user:age" }}')),
        config("mask without values", "c.config:49: feature_configs[3].bool_mask_feature: bool_mask_feature 'age' has 1 inputs; it takes the values and their mask", edits=generate(f'bool_mask_feature {{ {IDS} expression: "user:age" }}')),
        config("feature that is read does not exist", "c.config:49: feature_configs[3].combo_feature.expression[1]: there is no feature 'prise'; did you mean 'price'?", edits=generate(f'combo_feature {{ {IDS} expression: ["user:age", "feature:prise"] }}')),
        config("features read each other", "c.config:43: feature_configs[2].raw_feature.expression: features read each other in a circle: price → age → price", edits=generate(f'combo_feature {{ {IDS} expression: ["user:age", "feature:price"] }}', ("item:price", "feature:age"))),
        config("FG_NORMAL: a feature reads another", "c.config:49: feature_configs[3].combo_feature.expression[1]: reads the feature 'price', but in FG_NORMAL every feature is generated alone", edits=generate(f'combo_feature {{ {IDS} expression: ["user:age", "feature:price"] }}', mode="FG_NORMAL")),
        config("FG_NORMAL: a stub", "c.config:49: feature_configs[3].raw_feature.stub_type: stubs are read by other features, but in FG_NORMAL every feature is generated alone", edits=generate(f'raw_feature {{ {NUMBER} expression: "user:age" stub_type: true }}', ('"price", "age"]', '"price"]'), mode="FG_NORMAL")),
        config("stub in a group", "c.config:49: feature_configs[3].raw_feature.stub_type: feature 'age' is only an intermediate result, but a group uses it", edits=generate(f'raw_feature {{ {NUMBER} expression: "user:age" stub_type: true }}')),
        config("expression not closed", "c.config:49: feature_configs[3].expr_feature.expression: expression 'log(age': ')' is missing after the arguments of log at character 8", edits=generate(f'expr_feature {{ {NUMBER} expression: "log(age" variables: "user:age" }}')),
        config("function misspelt", "c.config:49: feature_configs[3].expr_feature.expression: expression '2 * lgo(age)': there is no function 'lgo'; did you mean 'log'? at character 5", edits=generate(f'expr_feature {{ {NUMBER} expression: "2 * lgo(age)" variables: "user:age" }}')),
        config("variable misspelt", "c.config:49: feature_configs[3].expr_feature.expression: expression 'agee + 1' has the variable 'agee', which is not in variables: age; did you mean 'age'?", edits=generate(f'expr_feature {{ {NUMBER} expression: "agee + 1" variables: "user:age" }}')),
        config("too many arguments", "c.config:49: feature_configs[3].expr_feature.expression: expression 'log(age, 2)': log takes 1 argument(s), not 2 at character 1", edits=generate(f'expr_feature {{ {NUMBER} expression: "log(age, 2)" variables: "user:age" }}')),
        config("normalizer misspelt", "c.config:49: feature_configs[3].raw_feature.normalizer: normalizer 'method=log2' must begin with method=; methods are log10, zscore, minmax, expression; did you mean 'log10'?", edits=generate(f'raw_feature {{ {NUMBER} expression: "user:age" normalizer: "method=log2" }}')),
        config("normalizer lacks a number", "c.config:49: feature_configs[3].raw_feature.normalizer: normalizer 'method=zscore,mean=1' lacks standard_deviation", edits=generate(f'raw_feature {{ {NUMBER} expression: "user:age" normalizer: "method=zscore,mean=1" }}')),
        config("normalizer's expression", "c.config:49: feature_configs[3].raw_feature.normalizer: normalizer: expression 'x+': an operand is missing at character 3", edits=generate(f'raw_feature {{ {NUMBER} expression: "user:age" normalizer: "method=expression,expr=x+" }}')),
        config("default that is no number", "c.config:49: feature_configs[3].raw_feature.default_value: default_value 'none' of age is not a number", edits=generate(f'raw_feature {{ {NUMBER} expression: "user:age" default_value: "none" }}')),
        config("default of another size", "c.config:49: feature_configs[3].raw_feature.default_value: default_value '1,2' of age has 2 numbers, but value_dim is 3", edits=generate(f'raw_feature {{ {NUMBER} expression: "user:age" default_value: "1,2" separator: "," value_dim: 3 }}')),
        config("overlap method misspelt", "c.config:49: feature_configs[3].overlap_feature.method: overlap_feature 'age': method is 'is_equals', must be one of …; did you mean 'is_equal'?", edits=generate(f'overlap_feature {{ {NUMBER} query: "user:age" title: "item:item_id" method: "is_equals" }}')),
        config("combiner misspelt", "c.config:49: feature_configs[3].lookup_feature.combiner: combiner is 'summ', must be one of sum, mean, avg, min, max, count, gap_min, gap_max or \"\"; did you mean 'sum'?", edits=generate(f'lookup_feature {{ {NUMBER} map: "user:age" key: "item:item_id" combiner: "summ" }}')),
        config("separator of two characters", "c.config:49: feature_configs[3].combo_feature.separator: separator is '||', must be one character of ASCII", edits=generate(f'combo_feature {{ {IDS} expression: ["user:age", "item:price"] separator: "||" }}')),
        config("value type misspelt", "c.config:49: feature_configs[3].lookup_feature.fg_value_type: value_type is 'flaot', must be one of string, float, double, int32, int64; did you mean 'float'?", edits=generate(f'lookup_feature {{ {NUMBER} map: "user:age" key: "item:item_id" fg_value_type: "flaot" }}')),
        config("tokenizer file is missing", "c.config:49: feature_configs[3].tokenize_feature.vocab_file: tokenizer file t.json cannot be read: No such file or directory (os error 2)", edits=generate(f'tokenize_feature {{ {NUMBER} embedding_dim: 16 expression: "user:age" vocab_file: "t.json" }}')),
        config("tokenizer misspelt", "c.config:49: feature_configs[3].tokenize_feature.tokenizer_type: tokenizer_type is 'bpee', must be one of bpe, sentencepiece; did you mean 'bpe'?", edits=generate(f'tokenize_feature {{ {NUMBER} embedding_dim: 16 expression: "user:age" vocab_file: "t.json" tokenizer_type: "bpee" }}')),
        config("tokens as a sequence of any length", "c.config:49: feature_configs[3].tokenize_feature.tokens_as_sequence: needs sequence_length", edits=generate(f'tokenize_feature {{ {NUMBER} embedding_dim: 16 expression: "user:age" vocab_file: "t.json" tokens_as_sequence: true }}')),
        config("operator misspelt", "c.config:49: feature_configs[3].custom_feature.operator_name: operator 'EditDistanc': cannot import x.y: No module named 'x'; did you mean 'EditDistance'?", edits=generate(f'custom_feature {{ {NUMBER} operator_name: "EditDistanc" operator_lib_file: "x.y" expression: ["user:age", "item:price"] }}')),
        config("operator in a shared object", "c.config:49: feature_configs[3].custom_feature.operator_name: operator 'Own': own.so is a shared object of another feature generator", edits=generate(f'custom_feature {{ {NUMBER} operator_name: "Own" operator_lib_file: "own.so" expression: "user:age" }}')),
        config("too few inputs of an operator", "c.config:49: feature_configs[3].custom_feature: EditDistance takes 2 input(s), not 1", edits=generate(f'custom_feature {{ {NUMBER} operator_name: "EditDistance" operator_lib_file: "x" expression: "user:age" }}')),
        config("two mistakes in two features", "c.config:43: feature_configs[2].raw_feature.normalizer: normalizer 'log10' must begin with method=; methods are log10, zscore, minmax, expression", edits=generate(f'combo_feature {{ {IDS} expression: "user:age" }}', ('"item:price"', '"item:price" normalizer: "log10"')), messages=2),
        files("input is not in the file", "c.config:49: feature_configs[3].expr_feature.variables[0]: input column 'agee' is not in file '{cwd}/data/train-0.parquet'; did you mean 'age'?", edits=generate(f'expr_feature {{ {NUMBER} expression: "agee + 1" variables: "user:agee" }}')),
        files("map where an id goes", "c.config:27: feature_configs[0].id_feature.expression: feature 'user_id': column 'user_id' is a map; the feature takes text, numbers or lists (file '{cwd}/data/train-0.parquet')", edits=(("FG_NONE", "FG_DAG"),), columns={"user_id": pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64()))}),
        files("lists of lists where there is no sequence", "c.config:51: feature_configs[3].raw_feature.expression: feature 'age': column 'age' cannot be read: its type is list<item: list<item: int64>> (file '{cwd}/data/train-0.parquet')", edits=(("FG_NONE", "FG_DAG"),), columns={"age": pa.array([[[1]]] * ROWS)}),
        files("FG_BUCKETIZE: a map where an id goes", "c.config:26: feature_configs[0].id_feature.feature_name: feature 'user_id': column 'user_id' is a map; the feature takes text, numbers or lists (file '{cwd}/data/train-0.parquet')", edits=(("FG_NONE", "FG_BUCKETIZE"),), columns={"user_id": pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64()))}),
        rows("text that is no number", "{cwd}/data/train-0.parquet: row group 0, row 40 (counted from 0): feature age of age: column 'age' holds 'old', which is not a number (column 'age' is 'old')", edits=(("FG_NONE", "FG_DAG"),), columns={"age": pa.array(["old" if row == 40 else "7" for row in range(ROWS)])}),
    ],
    "Labels, losses and metrics": [
        config("no label_fields", "c.config:17: data_config.label_fields: is missing: no column is named to learn from", edits=(('  label_fields: "clk"\n', ""),)),
        config("label given twice", "c.config:21: data_config.label_fields[1]: 'clk' is given twice", edits=(('label_fields: "clk"', 'label_fields: ["clk", "clk"]'),)),
        config("empty label name", "c.config:21: data_config.label_fields[0]: is empty", edits=(('label_fields: "clk"', 'label_fields: ""'),)),
        config("label is also a feature", "warning: c.config:21: data_config.label_fields[0]: label 'age' is also a feature: the model sees what it is to predict", edits=(('label_fields: "clk"', 'label_fields: "age"'),), run="check c.config", code=0),
        config("no loss", "c.config:54: model_config.losses: is missing: there is nothing to learn", edits=((LOSS, ""),)),
        config("loss given twice", "c.config:75: model_config.losses[1].binary_cross_entropy: loss binary_cross_entropy is given twice", edits=((LOSS, f"{LOSS} {LOSS}"),)),
        config("three classes for a binary loss", "c.config:75: model_config.losses[0].binary_cross_entropy: binary_cross_entropy needs num_class 1, but it is 3", edits=((AUC, "num_class: 3"),)),
        config("one class for softmax", "c.config:75: model_config.losses[0].softmax_cross_entropy: softmax_cross_entropy needs num_class at least 2, but it is 1 (the default)", edits=((LOSS, "losses { softmax_cross_entropy {} }"),)),
        config("metric that the loss does not serve", "c.config:74: model_config.metrics[0].mean_squared_error: mean_squared_error needs a regression, which binary_cross_entropy does not give", edits=((AUC, "metrics { mean_squared_error {} }"),)),
        config("metric given twice", "c.config:74: model_config.metrics[1].auc: metric auc is given twice", edits=((AUC, f"{AUC} {AUC}"),)),
        config("grouped by an unknown feature", "c.config:74: model_config.metrics[0].grouped_auc.grouping_key: there is no feature 'user'; did you mean 'user_id'?", edits=((AUC, 'metrics { grouped_auc { grouping_key: "user" } }'),)),
        config("session of an unknown feature", "c.config:59: model_config.losses[0].jrc_loss.session_name: there is no feature 'usr'; did you mean 'user'?", text=DIN, edits=(("softmax_cross_entropy {}", 'jrc_loss { session_name: "usr" }'),)),
        config("negative loss weight", "c.config:75: model_config.losses[0].weight: is -1, must be at least 0", edits=((LOSS, "losses { binary_cross_entropy {} weight: -1 }"),)),
        config("loss of weight 0", "warning: c.config:75: model_config.losses[0].weight: is 0: nothing is learnt from it", edits=((LOSS, "losses { binary_cross_entropy {} weight: 0 }"),), run="check c.config", code=0),
        config("a second label that nothing reads", "warning: c.config:21: data_config.label_fields[1]: 'buy' has no effect: DeepFM has one task and reads the first only", edits=(('label_fields: "clk"', 'label_fields: ["clk", "buy"]'),), run="check c.config", code=0),
        files("labels 1 and 2 for a binary loss", "c.config:21: data_config.label_fields[0]: label column 'clk' holds values from 1 to 2, but the loss takes 0 to 1 (file '{cwd}/data/train-0.parquet')", columns={"clk": pa.array([1 + row % 2 for row in range(ROWS)])}),
        files("class beyond num_class", "c.config:21: data_config.label_fields[0]: label column 'clk' holds classes from 0 to 3, but num_class is 3 (file '{cwd}/data/train-0.parquet')", columns={"clk": pa.array([row % 4 for row in range(ROWS)])}, edits=((LOSS, "losses { softmax_cross_entropy {} } num_class: 3"), (AUC, ""))),
        files("label is text", "c.config:21: data_config.label_fields[0]: label column 'clk' is string, but labels must be numbers (file '{cwd}/data/train-0.parquet')", columns={"clk": pa.array(["yes"] * ROWS)}),
        files("label is a list", "c.config:21: data_config.label_fields[0]: label column 'clk' is list<item: int64>, but DeepFM learns from one number per row (file '{cwd}/data/train-0.parquet')", columns={"clk": pa.array([[1]] * ROWS)}),
        files("label is missing in rows", "c.config:21: data_config.label_fields[0]: label column 'clk' has 1 missing values (file '{cwd}/data/train-0.parquet')", columns=one(None)("clk")),
        files("label is not in the file", "c.config:21: data_config.label_fields[0]: label column 'click' is not in file '{cwd}/data/train-0.parquet'; did you mean 'clk'?", edits=(('label_fields: "clk"', 'label_fields: "click"'),)),
        files("weight is not in the file", "c.config:21: data_config.sample_weight_fields[0]: sample weight column 'w' is not in file '{cwd}/data/train-0.parquet'", edits=(('label_fields: "clk"', 'label_fields: "clk" sample_weight_fields: "w"'),)),
        files("weight is an integer", "c.config:21: data_config.sample_weight_fields[0]: sample weight column 'price' is int64, but weights must be float (file '{cwd}/data/train-0.parquet')", edits=(('label_fields: "clk"', 'label_fields: "clk" sample_weight_fields: "price"'),)),
        files("weight is negative", "warning: c.config:21: data_config.sample_weight_fields[0]: sample weight column 'age' holds the weight -1.5: a negative one unlearns (file '{cwd}/data/train-0.parquet')", run="check c.config --data", code=0, edits=(('label_fields: "clk"', 'label_fields: "clk" sample_weight_fields: "age"'),), columns={"age": pa.array([row - 1.5 for row in range(ROWS)])}),
        files("labels of one file are text", "c.config:21: data_config.label_fields[0]: label column 'clk' is string, but labels must be numbers (file '{cwd}/data/train-1.parquet')", columns={"clk": pa.array([1] * ROWS)}, make=table("data/train-1.parquet", {"clk": pa.array(["yes"] * ROWS)})),
        files("label is always the same", "warning: c.config:21: data_config.label_fields[0]: label column 'clk' is always 1 in 'data/train-*.parquet': there is nothing to tell apart", run="check c.config --data", code=0, columns={"clk": pa.array([1] * ROWS)}),
        files("weight is missing in rows", "c.config:21: data_config.sample_weight_fields[0]: sample weight column 'age' has 1 missing values (file '{cwd}/data/train-0.parquet')", edits=(('label_fields: "clk"', 'label_fields: "clk" sample_weight_fields: "age"'), ('expression: "user:age"', 'fg_encoded_default_value: "0"')), columns=one(None)("age")),
        rows("label is nan", "{cwd}/data/train-0.parquet: row group 0, row 40 (counted from 0): label 'clk' is nan, which is not finite (column 'clk' is nan)", columns=one(float("nan"))("age") | {"clk": pa.array([float(row % 2) if row != 40 else float("nan") for row in range(ROWS)]), "age": CLICKS["age"]}),
        rows("CSV: labels 1 and 2", "data/clicks.csv: row 0 (counted from 0): label 'clk' is 2 in row 0 of the batch, it must be from 0 to 1", edits=CSV, make=text_file("data/clicks.csv", HEAD + "1,2,3,0.5,2\n" * 300)),
    ],
    "Input paths": [
        files("no file matches", "c.config:2: train_input_path: no parquet files exist in 'data/trian-*.parquet'; did you mean 'data/train-1.parquet'?", edits=(("data/train-*", "data/trian-*"),)),
        files("no such file", "c.config:2: train_input_path: no parquet files exist in 'data/train-7.parquet'; did you mean 'data/train-1.parquet'?", edits=(("data/train-*.parquet", "data/train-7.parquet"),)),
        files("no such folder", "--train_input_path: no parquet files exist in 'day=1'", run="train c.config --train-input-path day=1"),
        files("no data in the folder", "c.config:2: train_input_path: no parquet files exist in 'empty'", edits=(("data/train-*.parquet", "empty"),), make=text_file("empty/_SUCCESS", "")),
        files("one of several is missing", "c.config:2: train_input_path: no parquet files exist in 'data/train-9.parquet'; did you mean 'data/train-1.parquet'?", edits=(("data/train-*.parquet", "data/train-0.parquet,data/train-9.parquet"),)),
        files("evaluation data is missing", "c.config:3: eval_input_path: no parquet files exist in 'data/evl.parquet'; did you mean 'data/eval.parquet'?", edits=(("data/eval.parquet", "data/evl.parquet"),)),
        config("files of two kinds", "c.config:2: train_input_path: mixes 'CsvDataset', 'ParquetDataset' files", edits=(("data/train-*.parquet", "data/train-0.parquet,data/train.csv"),)),
        config("reader of another kind", "c.config:19: data_config.dataset_type: is CsvDataset, but train_input_path is read by ParquetDataset: data/train-*.parquet", edits=(("ParquetDataset", "CsvDataset"),)),
        config("reader of a later version", "c.config:2: train_input_path: reader OdpsDataset comes with a later version", edits=(("data/train-*.parquet", "odps://p/tables/t"),)),
        files("no such scheme", "c.config:2: train_input_path: no file system for 'nos://x/a.parquet': Protocol not known: nos", edits=(("data/train-*.parquet", "nos://x/a.parquet"),)),
        files("file is empty", "c.config:2: train_input_path: file '{cwd}/data/train-0.parquet' cannot be read: Parquet file size is 0 bytes", make=text_file("data/train-0.parquet", "")),
        files("file is not Parquet", "c.config:2: train_input_path: file '{cwd}/data/train-0.parquet' cannot be read: Parquet magic bytes not found in footer. …", make=text_file("data/train-0.parquet", "user_id,clk\n1,0\n")),
        files("file is cut off", "c.config:2: train_input_path: file '{cwd}/data/train-0.parquet' cannot be read: Parquet magic bytes not found in footer. …", make=cut("data/train-0.parquet", 900)),
        files("no rows", "c.config:2: train_input_path: the files of 'data/train-*.parquet' hold no rows", columns={name: array.slice(0, 0) for name, array in CLICKS.items()}, edits=((EPOCHS, "num_steps: 5"),), messages=2),
        files("CSV: only a header", "c.config:2: train_input_path: file 'data/clicks.csv' holds no rows", edits=(*CSV, (EPOCHS, "num_steps: 5")), make=text_file("data/clicks.csv", HEAD)),
        files("CSV: an empty file", "c.config:2: train_input_path: file 'data/clicks.csv' holds no rows", edits=(*CSV, (EPOCHS, "num_steps: 5")), make=text_file("data/clicks.csv", "")),
        files("CSV: not text", "c.config:2: train_input_path: file 'data/clicks.csv' cannot be read: CSV parse error: Row #3: Expected 1 columns, got 2", edits=CSV, make=text_file("data/clicks.csv", bytes(range(256)) * 9)),
        files("CSV: another delimiter", "c.config:17: data_config.delimiter: none of the columns that the config reads is in file 'data/clicks.csv'", edits=CSV, make=text_file("data/clicks.csv", (HEAD + "1,2,3,0.5,0\n" * 9).replace(",", "\t"))),
        files("CSV: no header, but with_header", "c.config:19: data_config.with_header: none of the columns that the config reads is in file 'data/clicks.csv'", edits=CSV, make=text_file("data/clicks.csv", "1,2,3,0.5,0\n" * 9)),
        config("CSV: columns without names", "c.config:17: data_config.with_header: is false, and input_fields does not name the columns", edits=(*CSV, ("with_header: true", ""))),
        config("CSV: delimiter of two characters", "c.config:19: data_config.delimiter: is '||', must be one character", edits=(*CSV, ("with_header: true", 'with_header: true delimiter: "||"'))),
        config("CSV: unknown type", "c.config:19: data_config.input_fields_str: 'user_id:INTT64' has no known type; did you mean 'INT64'?", edits=(*CSV, ("with_header: true", 'with_header: true input_fields_str: "user_id:INTT64;item_id:INT64;price:INT64;age:FLOAT;clk:INT"'))),
        config("fewer rows than a batch, and the rest dropped", "128 rows for each process make no full batch of 256, and data_config.drop_remainder drops the rest", known="run", code=3, edits=(("num_workers: 2", "drop_remainder: true"),)),
    ],
    "Columns": [
        files("feature column is missing", "c.config:42: feature_configs[2].raw_feature.feature_name: feature column 'price' is not in file '{cwd}/data/train-0.parquet'", columns={"price": None}),
        files("several columns are missing", "c.config:42: feature_configs[2].raw_feature.feature_name: feature column 'price' is not in file '{cwd}/data/train-0.parquet'", columns={"price": None, "age": None}, messages=2),
        files("column is spelt otherwise", "c.config:42: feature_configs[2].raw_feature.feature_name: feature column 'Price' is not in file '{cwd}/data/train-0.parquet'; did you mean 'price'?", edits=(('feature_name: "price"', 'feature_name: "Price"'), *[('"price"', '"Price"')] * 2)),
        files("column is missing in one file", "c.config:42: feature_configs[2].raw_feature.feature_name: feature column 'price' is not in file '{cwd}/data/train-1.parquet'", make=table("data/train-1.parquet", {"price": None})),
        files("event time is not in the file", "c.config:22: data_config.event_time_field: event time column 'ts' is not in file '{cwd}/data/train-0.parquet'", edits=(("num_workers: 2", 'event_time_field: "ts"'),)),
        files("weighted ids without weights", "c.config:26: feature_configs[0].id_feature.feature_name: feature 'user_id' cannot read a column of int64; it takes text 'id:weight', a list of it, or a map id → weight (file '{cwd}/data/train-0.parquet')", edits=((BUCKETS, BUCKETS + " weighted: true"),)),
        files("id is a float", "c.config:26: feature_configs[0].id_feature.feature_name: feature 'user_id' cannot read a column of double; it takes integers, text, or a list of these (file '{cwd}/data/train-0.parquet')", columns={"user_id": pa.array([float(row) for row in range(ROWS)])}),
        files("id is a date", "c.config:26: feature_configs[0].id_feature.feature_name: feature column 'user_id' of {cwd}/data/train-0.parquet has type date32[day]; readable are …", columns={"user_id": pa.array([0] * ROWS, pa.date32())}),
        files("id is bytes", "c.config:26: feature_configs[0].id_feature.feature_name: feature column 'user_id' of {cwd}/data/train-0.parquet has type binary; readable are …", columns={"user_id": pa.array([b"1"] * ROWS)}),
        files("id is a struct", "c.config:26: feature_configs[0].id_feature.feature_name: feature column 'user_id' of {cwd}/data/train-0.parquet has type struct<a: int64>; readable are …", columns={"user_id": pa.array([{"a": 1}] * ROWS)}),
        files("number is a list of lists of lists", "c.config:50: feature_configs[3].raw_feature.feature_name: feature column 'age' of {cwd}/data/train-0.parquet has type list<element: list<element: list<element: double>>>; readable are …", columns={"age": pa.array([[[[1.0]]]] * ROWS)}),
        files("number is a struct", "c.config:50: feature_configs[3].raw_feature.feature_name: feature column 'age' of {cwd}/data/train-0.parquet has type struct<a: double>; readable are …", columns={"age": pa.array([{"a": 1.0}] * ROWS)}),
        files("types differ between files", "c.config:26: feature_configs[0].id_feature.feature_name: feature column 'user_id' is int64 in {cwd}/data/train-0.parquet but string in {cwd}/data/train-1.parquet", make=table("data/train-1.parquet", {"user_id": pa.array([str(row) for row in range(ROWS)])})),
        files("CSV: column is missing", "c.config:42: feature_configs[2].raw_feature.feature_name: feature column 'price' is not in file 'data/clicks.csv'; did you mean 'prize'?", edits=CSV, make=text_file("data/clicks.csv", HEAD.replace("price", "prize") + "1,2,3,0.5,0\n" * 9)),
        files("CSV: label is text", "c.config:21: data_config.label_fields[0]: label column 'clk' is string, but labels must be numbers (file 'data/clicks.csv')", edits=CSV, make=text_file("data/clicks.csv", HEAD + "1,2,3,0.5,no\n" * 9)),
        config("CSV: column is not declared", "c.config:21: data_config.label_fields[0]: label column 'clk' is not in the input_fields; did you mean 'clik'?", edits=(*CSV, ("with_header: true", 'with_header: true input_fields_str: "user_id:INT64;item_id:INT64;price:INT64;age:FLOAT;clik:INT"'))),
    ],
    "Values": [
        files("id beyond num_buckets", "c.config:26: feature_configs[0].id_feature.feature_name: feature column 'user_id' holds the id 4196, but the table has 1000 rows (ids 0 to 999) (file '{cwd}/data/train-0.parquet')", columns=one(4196)("user_id")),
        files("negative id", "c.config:26: feature_configs[0].id_feature.feature_name: feature column 'user_id' holds the id -5; ids must not be negative (file '{cwd}/data/train-0.parquet')", columns=one(-5)("user_id")),
        rows("id beyond the table, in a list", "{cwd}/data/train-0.parquet: row group 0, row 40 (counted from 0): feature 'user_id': id 1000 is outside 0 … 999, the rows of its table (column 'user_id' is [40, 1000])", columns={"user_id": pa.array([[row, 1000 if row == 40 else 1] for row in range(ROWS)])}),
        rows("id is text, but no number", "{cwd}/data/train-0.parquet: row group 0, row 40 (counted from 0): feature 'user_id' holds 'abc', which is not a whole number (column 'user_id' is 'abc')", columns={"user_id": pa.array(["abc" if row == 40 else str(row) for row in range(ROWS)])}),
        rows("id beyond the table, as text", "{cwd}/data/train-0.parquet: row group 0, row 40 (counted from 0): feature 'user_id': id 1000 is outside 0 … 999, the rows of its table (column 'user_id' is '1000')", columns={"user_id": pa.array(["1000" if row == 40 else str(row) for row in range(ROWS)])}),
        files("number is missing in rows", "c.config:50: feature_configs[3].raw_feature.feature_name: feature column 'age' has 1 missing values; say what they mean with fg_encoded_default_value (file '{cwd}/data/train-0.parquet')", columns=one(None)("age")),
        rows("number is nan", "binary_cross_entropy is nan at step 0; the input of feature age is not finite (2 of 128 rows, the first is {cwd}/data/train-0.parquet: row 40 (counted from 0))", columns=one(float("nan"))("age")),
        rows("number is infinite", "binary_cross_entropy is nan at step 0; the input of feature age is not finite (2 of 128 rows, the first is {cwd}/data/train-0.parquet: row 40 (counted from 0))", columns=one(float("inf"))("age")),
        rows("number is text, but no number", "{cwd}/data/train-0.parquet: row group 0, row 40 (counted from 0): feature 'age' holds 'old', which is not a number (column 'age' is 'old')", columns={"age": pa.array(["old" if row == 40 else "1.5" for row in range(ROWS)])}),
        rows("too many numbers in a row", "{cwd}/data/train-0.parquet: row group 0, row 40 (counted from 0): feature 'age' has 2 numbers, but value_dim is 1 (column 'age' is [1.0, 2.0])", columns={"age": pa.array([[1.0, 2.0] if row == 40 else [1.0] for row in range(ROWS)])}),
        rows("more bad rows than may be skipped", "more than max_bad_rows: 1 rows cannot be used, now {cwd}/data/train-0.parquet: row group 0, row 40 (counted from 0): feature 'user_id' holds 'abc', which is not a whole number (column 'user_id' is 'abc')", edits=(("num_workers: 2", "max_bad_rows: 1"),), columns={"user_id": pa.array(["abc" if row in (7, 40) else str(row) for row in range(ROWS)])}),
        rows("CSV: text among numbers", "data/clicks.csv: row 100000 (counted from 0): feature 'age' holds 'old', which is not a number (column 'age' is 'old')", edits=(*CSV, ("batch_size: 256", "batch_size: 20000")), make=text_file("data/clicks.csv", HEAD + "1,2,3,0.5,0\n" * 100000 + "1,2,3,old,0\n")),
        rows("CSV: a row with fewer columns", "c.config:2: train_input_path: file 'data/clicks.csv' cannot be read: CSV parse error: Row #11: Expected 5 columns, got 3", edits=CSV, make=text_file("data/clicks.csv", HEAD + "1,2,3,0.5,0\n" * 9 + "1,2,3\n")),
        rows("CSV: id beyond the table", "data/clicks.csv: row 9 (counted from 0): feature 'user_id': id 1000 is outside 0 … 999, the rows of its table (column 'user_id' is 1000)", edits=CSV, make=text_file("data/clicks.csv", HEAD + "1,2,3,0.5,0\n" * 9 + "1000,2,3,0.5,0\n")),
        rows("CSV: an empty number", "data/clicks.csv: row 9 (counted from 0): feature 'age' is null or empty, and there is no default (column 'age' is null)", edits=CSV, make=text_file("data/clicks.csv", HEAD + "1,2,3,0.5,0\n" * 9 + "1,2,3,,0\n")),
        rows("CSV: an empty label", "data/clicks.csv: row 9 (counted from 0): label 'clk' is null (column 'clk' is null)", edits=CSV, make=text_file("data/clicks.csv", HEAD + "1,2,3,0.5,0\n" * 9 + "1,2,3,1,\n")),
        rows("loss grows beyond all bounds", "binary_cross_entropy is … at step …; …", edits=((ADAM, "sgd_optimizer { lr: 1e30 }"), (EPOCHS, "num_steps: 50"))),
        rows("row group is damaged", "{cwd}/data/train-1.parquet: row group 0: rows 0 … 63 (counted from 0) cannot be read: …", make=lambda root: damage(root / "data" / "train-1.parquet")),
    ],
    "Runs and checkpoints": [
        run("the run directory holds a run", "model_dir run already holds model.ckpt-0", needs="run"),
        config("the run directory is a file", "c.config:4: model_dir: 'data/eval.parquet' is a file, must be a directory", edits=(('model_dir: "run"', 'model_dir: "data/eval.parquet"'),)),
        run("the directory of dumps holds those of another run", "run/delta_embedding_dump already holds delta dumps of another run: 'delta_embedding', steps 5 to 5", edits=((EPOCHS, f"{EPOCHS} delta_embedding_dump_config {{}}"),), make=text_file("run/delta_embedding_dump/delta_embedding_step_5.parquet", "")),
        run("the run directory cannot be written", "model_dir /proc/run cannot be written: [Errno 2] No such file or directory: '/proc/run'", edits=(('model_dir: "run"', 'model_dir: "/proc/run"'),)),
        run("fine-tuning from nothing", "checkpoint nowhere does not exist", run="train c.config --fine-tune-checkpoint nowhere"),
        run("fine-tuning from a folder without checkpoints", "data holds no checkpoint (model.ckpt-<step>)", run="train c.config --fine-tune-checkpoint data"),
        run("fine-tuning from another model", "the embedding tables are not as they were in run/model.ckpt-0: 2 tables:", needs="run", run="train c.config --model-dir run2 --fine-tune-checkpoint run", edits=((BUCKETS, "num_buckets: 900"),)),
        run("going on with a larger table", "the embedding tables are not as they were in run/model.ckpt-0: 2 tables:", needs="run", run="train c.config --continue --set train_config.num_epochs=2", edits=((BUCKETS, "num_buckets: 1200"),)),
        run("going on with a wider layer", "shapes differ from the checkpoint's:", needs="run", run="train c.config --continue --set train_config.num_epochs=2", edits=(("[64, 32]", "[65, 32]"),)),
        run("going on with a finished run", "warning: the run in run is finished: 1 steps, 1 passes; nothing was done. Raise train_config.num_epochs or num_steps to go on", needs="run", run="train c.config --continue", code=0, env={"LOG_LEVEL": "WARNING"}),
        run("evaluating nothing", "run holds no checkpoint (model.ckpt-<step>)", run="eval c.config"),
        run("evaluating no such checkpoint", "checkpoint run/model.ckpt-7 does not exist", needs="run", run="eval c.config --checkpoint-path run/model.ckpt-7"),
        run("evaluating a misspelt checkpoint", "checkpoint bst does not exist; did you mean 'best'?", needs="run", run="eval c.config --checkpoint bst"),
        run("evaluating without data", "eval_input_path is empty: there is nothing to evaluate", needs="run", run="eval run/pipeline.config --eval-input-path ''", code=2),
        run("evaluating data that is missing", "--eval_input_path: no parquet files exist in 'none.parquet'", needs="run", run="eval run/pipeline.config --eval-input-path none.parquet", code=3),
        run("evaluating another model", "the embedding tables are not as they were in run/model.ckpt-0: 2 tables:", needs="run", run="eval c.config", edits=((BUCKETS, "num_buckets: 1200"),)),
        run("a checkpoint file is cut off", "run holds no whole checkpoint (model.ckpt-0: model/__0_0.distcp has 99 bytes instead of …)", needs="run", run="eval run/pipeline.config", make=cut("run/model.ckpt-*/model/*.distcp", 99)),
        run("a checkpoint without its metadata", "run holds no whole checkpoint (model.ckpt-0: model/.metadata is missing)", needs="run", run="eval run/pipeline.config", make=lambda root: next(root.glob("run/model.ckpt-*/model/.metadata")).unlink()),
        run("exporting nothing", "run holds no checkpoint (model.ckpt-<step>)", run="export c.config --export-dir export"),
        run("exporting onto a directory", "export_dir {cwd}/data exists already", needs="run", run="export run/pipeline.config --export-dir data", code=6),
        run("a checkpoint name that there is not", "checkpoint bst does not exist; did you mean 'best'?", needs="run", run="export run/pipeline.config --export-dir export --checkpoint-path bst"),
        run("an asset file is missing", "asset_files: there is no file notes.txt", needs="run", run="export run/pipeline.config --export-dir export --asset-files notes.txt", code=6),
        run("export options that are not JSON", "--additional_export_config is not JSON: …", needs="run", run="export run/pipeline.config --export-dir export --additional-export-config {a}", code=2),
        run("an entry that contradicts the export", "additional_export_config says QUANT_EMB = 'INT8', the export has '0'", needs="run", run="export run/pipeline.config --export-dir export --additional-export-config '{\"QUANT_EMB\": \"INT8\"}'", code=2),
        run("two asset files of one name", "asset files data/eval.parquet and ./data/eval.parquet have the same name", needs="run", run="export run/pipeline.config --export-dir export --asset-files data/eval.parquet,./data/eval.parquet", code=6),
        run("items for an export without an item tower", "--item_input_path is for models with an item tower", needs="run", run="export run/pipeline.config --export-dir export --item-input-path x", code=2),
    ],
    "Prediction": [
        run("input is missing", "no parquet files exist in 'none.parquet'", needs="export", run="predict export --input none.parquet --output out", code=3),
        run("a column is missing", "column 'price' is not in data/eval.parquet", needs="export", run=f"predict export {PREDICT}", columns={"price": None}, code=3),
        run("id beyond the table", "data/eval.parquet: row group 0, row 40 (counted from 0): feature 'user_id': id 4196 is outside 0 … 999, the rows of its table (column 'user_id' is 4196)", needs="export", run=f"predict export {PREDICT}", columns=one(4196)("user_id"), code=3),
        run("no such prediction", "output column 'prob': the model gives logits, probs; did you mean 'probs'?", needs="export", run=f"predict export {PREDICT} --output-columns prob", code=2),
        run("no such column to keep", "column 'row' is not in data/eval.parquet", needs="export", run=f"predict export {PREDICT} --reserved-columns row", code=3),
        run("unknown writer", "unknown writer_type 'Parquet'; did you mean 'ParquetWriter'?", needs="export", run=f"predict export {PREDICT} --writer-type Parquet", code=2),
        run("unknown reader", "--dataset_type: 'Parquet'; known are OdpsDataset, ParquetDataset, CsvDataset, OdpsDatasetV1, KafkaDataset; did you mean 'ParquetDataset'?", needs="export", run=f"predict export {PREDICT} --dataset-type Parquet", code=2),
        run("output is a file", "cannot make the output directory c.config: …", needs="export", run="predict export --input data/eval.parquet --output c.config", code=3),
        run("the exported model is cut off", "{cwd}/export/scripted_model.pt has 99 bytes; manifest.json says …", needs="export", run=f"predict export {PREDICT}", make=cut("export/scripted_model.pt", 99), code=1),
        run("the export has no config", "{cwd}/export/pipeline.config is missing; manifest.json lists it", needs="export", run=f"predict export {PREDICT}", make=lambda root: (root / "export" / "pipeline.config").unlink(), code=1),
        run("a checkpoint that is not there", "run holds no checkpoint (model.ckpt-<step>)", run=f"predict c.config {PREDICT}"),
        run("an edit that is wrong", "data_config.batchsize: DataConfig has no field 'batchsize'; did you mean 'batch_size'?", needs="export", run=f"predict export {PREDICT} --edit-config-json '{{\"data_config.batchsize\": 1}}'", code=2),
    ],
}
# fmt: on


def damage(path: Path) -> None:
    """Overwrites what lies before the footer of a Parquet file."""
    data = bytearray(path.read_bytes())
    for position in range(20, 400):
        data[position] ^= 0x5A
    path.write_bytes(bytes(data))
