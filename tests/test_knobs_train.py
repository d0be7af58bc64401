"""Every field of train_config and eval_config that is none of an optimizer changes something.

What the change is right for is tested where the part is tested.
"""

import contextlib
import logging
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from knob_runs import config_path, load, rows, trained
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from tzrec.errors import PlanError
from tzrec.main import train_and_evaluate
from tzrec.options import Options
from tzrec.protos.train_pb2 import TrainConfig
from tzrec.training import build
from tzrec.training.distributed.cluster import Cluster
from tzrec.training.distributed.limits import Wishes
from tzrec.training.distributed.plan import create_sharders, make_plan
from tzrec.training.distributed.process_group import process_group

TRAIN, DATA, EVAL = "train_config", "data_config", "eval_config"
CLIPPING = f"{TRAIN}.grad_clipping"
SCALER = f"{TRAIN}.grad_scaler"
# Field → its other value, and what both runs set so that it matters. Weights change.
WEIGHTS = {
    f"{TRAIN}.mixed_precision": ("BF16", ()),
    f"{TRAIN}.gradient_accumulation_steps": ("2", ()),
    f"{CLIPPING}.clipping_type": ("value", (f"{CLIPPING}.max_gradient=0.001",)),
    f"{CLIPPING}.max_gradient": ("0.001", (f"{CLIPPING}.clipping_type=norm",)),
    f"{CLIPPING}.norm_type": (
        "1",
        (f"{CLIPPING}.clipping_type=norm", f"{CLIPPING}.max_gradient=0.001"),
    ),
    f"{TRAIN}.embedding_l2": ("0.5", ()),
    f"{TRAIN}.embedding_l2_all_rows": ("true", (f"{TRAIN}.embedding_l2=0.5",)),
    f"{TRAIN}.dense_l2": ("0.5", ()),
    f"{TRAIN}.seed": ("7", ()),
}
# The averages, or the scale of the loss, change.
STATE = {
    f"{TRAIN}.dense_optimizer.ema.decay": ("0.5", ()),
    f"{SCALER}.init_scale": ("1024", ()),
    f"{SCALER}.growth_factor": ("4", (f"{SCALER}.growth_interval=2",)),
    f"{SCALER}.growth_interval": ("2", (f"{SCALER}.growth_interval=5",)),
    # Such gradients overflow.
    f"{SCALER}.backoff_factor": (
        "0.25",
        (f"{SCALER}.init_scale=1e38", "model_config.losses[0].weight=100"),
    ),
}
EVERY_STEP = (f"{TRAIN}.save_checkpoints_steps=1",)
STOP = (*EVERY_STEP, f"{TRAIN}.early_stop={{ metric: 'auc' larger_is_better: false patience: 1 }}")
TIMES = (f"{TRAIN}.save_checkpoints_timestamp_interval=100", f"{DATA}.event_time_field=time")
AVERAGED = (f"{TRAIN}.dense_optimizer.ema={{ decay: 0.9 }}",)
# What the run directory holds, what is logged, or what is evaluated changes.
RUNS = {
    f"{TRAIN}.num_steps": ("3", (f"{TRAIN}.num_epochs=0", f"{TRAIN}.num_steps=2")),
    f"{TRAIN}.num_epochs": ("2", ()),
    f"{TRAIN}.save_checkpoints_steps": ("2", ()),
    f"{TRAIN}.save_checkpoints_epochs": ("1", (f"{TRAIN}.num_epochs=2",)),
    f"{TRAIN}.save_checkpoints_timestamp_interval": ("50", TIMES),
    f"{TRAIN}.save_checkpoints_timestamps": ("[70]", TIMES),
    f"{DATA}.event_time_field": ("late_time", TIMES),
    f"{TRAIN}.keep_checkpoint_max": ("2", EVERY_STEP),
    f"{TRAIN}.log_step_count_steps": ("2", ()),
    f"{TRAIN}.use_tensorboard": ("false", ()),
    f"{TRAIN}.is_profiling": ("true", (f"{TRAIN}.num_epochs=0", f"{TRAIN}.num_steps=13")),
    f"{TRAIN}.early_stop.metric": ("binary_cross_entropy", STOP),
    f"{TRAIN}.early_stop.larger_is_better": ("true", STOP),
    f"{TRAIN}.early_stop.patience": ("2", STOP),
    f"{TRAIN}.early_stop.min_delta": ("9", (*STOP, f"{TRAIN}.early_stop.larger_is_better=true")),
    f"{EVAL}.num_steps": ("1", (f"{DATA}.eval_batch_size=16",)),
    f"{EVAL}.use_dense_ema": ("false", AVERAGED),
    f"{DATA}.batch_size": ("16", ()),
    f"{DATA}.label_fields": ('["other"]', ()),
    f"{DATA}.sample_weight_fields": ('["weight"]', ()),
}
CONSTRAINTS = f"{TRAIN}.global_embedding_constraints"
PLACEMENT = {
    f"{CONSTRAINTS}.sharding_types": '["table_wise"]',
    # Refused: a CPU has none.
    f"{CONSTRAINTS}.compute_kernels": '["dense"]',
}
SWITCHES = {
    f"{TRAIN}.cudnn_allow_tf32": torch.backends.cudnn,
    f"{TRAIN}.cuda_matmul_allow_tf32": torch.backends.cuda.matmul,
}


@pytest.fixture(autouse=True, scope="module")
def group():
    with process_group(Options()):
        yield


@pytest.mark.parametrize("path", WEIGHTS)
def test_weights_change(path):
    value, base = WEIGHTS[path]
    assert trained(base)[0] != trained((*base, f"{path}={value}"))[0]


@pytest.mark.parametrize("path", STATE)
def test_averages_or_scale_change(path):
    value, base = STATE[path]
    message = path.rpartition(".")[0]
    base = (f"{message}={{ }}", *base)
    assert trained(base)[2] != trained((*base, f"{path}={value}"))[2]


def table(seed, num_batches):
    parts = [rows(seed + i) for i in range(num_batches)]
    columns = {name: pa.concat_arrays([part[name] for part in parts]) for name in parts[0]}
    num_rows = len(columns["clk"])
    columns["time"] = pa.array(range(num_rows))
    columns["late_time"] = pa.array([t + 35 for t in range(num_rows)])
    columns["other"] = pa.array([i % 3 % 2 for i in range(num_rows)])
    columns["weight"] = pa.array([1.0 + i % 2 for i in range(num_rows)])
    return pa.table(columns)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    pq.write_table(table(0, 4), path / "train.parquet")
    pq.write_table(table(9, 2), path / "eval.parquet")
    return path


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """Returns ``run(edits) -> what is seen of the run``; each is made once."""
    seen = {}

    def once(edits):
        if edits not in seen:
            seen[edits] = observed(data, tmp_path_factory.mktemp("run") / "model", edits)
        return seen[edits]

    return once


def observed(data, model_dir, edits):
    """Names of the files, what is evaluated, and the steps of the lines of a run."""
    handler, lines = logging.Handler(), []
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("tzrec")
    with contextlib.ExitStack() as undo:
        undo.callback(logger.setLevel, logger.level)
        undo.callback(logger.removeHandler, handler)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        train_and_evaluate(
            str(config_path()),
            train_input_path=str(data / "train.parquet"),
            eval_input_path=str(data / "eval.parquet"),
            model_dir=str(model_dir),
            edits=[f"{TRAIN}.num_epochs=1", *edits],
        )
    files = {str(p.relative_to(model_dir)) for p in model_dir.rglob("*")}
    return (
        sorted({re.sub(r"tfevents.*|\.json$|[\w-]+\.\d+\.", "", name) for name in files}),
        (model_dir / "train_eval_result_v2.txt").read_text(),
        re.findall(r"step \d+(?:/\d+)?", "\n".join(lines)),
    )


@pytest.mark.parametrize("path", RUNS)
def test_a_run_changes(path, run):
    value, base = RUNS[path]
    assert run(base) != run((*base, f"{path}={value}"))


def test_a_run_without_a_change_is_the_same(run, data, tmp_path):
    again = observed(data, tmp_path / "model", ())
    assert again == run(())


@pytest.mark.parametrize("path", SWITCHES)
def test_switches_of_tf32(path):
    backend, name = SWITCHES[path], path.rpartition(".")[2]
    before = backend.allow_tf32
    try:
        for value in (True, False, True):
            build.set_tf32(TrainConfig(**{name: value}))
            assert backend.allow_tf32 is value
    finally:
        backend.allow_tf32 = before


@pytest.mark.parametrize("path", PLACEMENT)
def test_placement_changes(path):
    table = EmbeddingBagConfig(num_embeddings=8, embedding_dim=4, name="t", feature_names=["f"])
    model = EmbeddingBagCollection([table], device=torch.device("meta"))

    def placed(*edits):
        cluster = Cluster(ddr=10**9)
        try:
            plan = make_plan(
                model,
                create_sharders(),
                cluster=cluster,
                wishes=Wishes.of(load(edits).train_config),
            )
        except PlanError as error:
            return str(error)
        return plan.plan[""]["t"].sharding_type

    before, after = placed(), placed(f"{path}={PLACEMENT[path]}")
    assert before == "row_wise"
    assert before != after
