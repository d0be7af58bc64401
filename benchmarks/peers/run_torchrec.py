"""TorchRec by its documented interface, as shipped, on a process group of one; nothing of tzrec.

Sharded collections with FBGEMM's kernels and the optimizer in the backward pass, the planner's
plan, the sparse pipeline, Adam for the dense part, a thread that reads ahead. FBGEMM has no Adam on
a CPU. Settings: an optimizer of the tables and a precision, as ``rowwise-FP32``. The clock runs
from the end of the first step on, as with tzrec.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from measure import RATE, Job, Meter, auc, cpu_seconds, finish, job, peak_mib
from shapes import Shape, load
from torchrec import KeyedJaggedTensor
from torchrec.distributed import DistributedModelParallel, TrainPipelineSparseDist
from torchrec.distributed.model_parallel import get_default_sharders
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.distributed.types import ModuleSharder, ShardingPlan, ShardingType
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec_models import Batch, Task

OPTIMIZERS = {"rowwise": RowWiseAdagrad, "adagrad": torch.optim.Adagrad}
TABLE_RATE = 0.02
READ_AHEAD = 4
SEED = 1
CPU = torch.device("cpu")


def main() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        measure(job())
    finally:
        dist.destroy_process_group()


def measure(task: Job) -> None:
    """Trains, tests and prints the figures."""
    meter, shape = Meter(), load(task.data)
    torch.manual_seed(SEED)
    labels = shape.labels if task.model == "mmoe" else shape.labels[:1]
    with meter.phase("build"):
        model, optimizer = build(task, shape, len(labels))
    pipeline = TrainPipelineSparseDist(model, optimizer, CPU)
    batches = read_ahead(Reader(task, shape, labels).batches("train"))
    wall, cpu = time.perf_counter(), cpu_seconds()
    pipeline.progress(batches)
    meter.add("start", time.perf_counter() - wall, cpu_seconds() - cpu)
    rows = 0
    with meter.phase("train"):
        while True:
            try:
                rows += len(pipeline.progress(batches))
            except StopIteration:
                break
    peak = peak_mib()
    pipeline.detach()
    truth, found = predict(model, Reader(task, shape, labels).batches("test"))
    scores = {name: auc(truth[:, i], found[:, i]) for i, name in enumerate(labels)}
    finish(meter, rows, scores, peak, version=version("torchrec"))


def build(task: Job, shape: Shape, num_labels: int) -> tuple[torch.nn.Module, CombinedOptimizer]:
    """Returns the sharded model and the optimizer of both parts."""
    sparse, precision = task.setting.split("-")
    model = Task(task.model, shape, num_labels, precision)
    for tables in (model.pooled_tables, model.step_tables):
        if tables is not None:
            rate = {"lr": TABLE_RATE}
            apply_optimizer_in_backward(OPTIMIZERS[sparse], tables.parameters(), rate)
    sharders = get_default_sharders()
    sharded = DistributedModelParallel(
        model, device=CPU, plan=plan(task, model, sharders), sharders=sharders
    )
    dense = KeyedOptimizerWrapper(
        dict(in_backward_optimizer_filter(sharded.named_parameters())),
        lambda parameters: torch.optim.Adam(parameters, lr=RATE),
    )
    return sharded, CombinedOptimizer([sharded.fused_optimizer, dense])


def plan(task: Job, model: Task, sharders: list[ModuleSharder]) -> ShardingPlan:
    """Returns the planner's plan for one process of a CPU.

    Left to itself it makes small tables data-parallel, and these take Adam over all rows in place
    of the optimizer in the backward pass.
    """
    constraint = ParameterConstraints(sharding_types=[ShardingType.TABLE_WISE.value])
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=1, compute_device="cpu"),
        batch_size=task.batch_size,
        constraints=dict.fromkeys(table_names(model), constraint),
    )
    return planner.collective_plan(model, sharders, dist.GroupMember.WORLD)


def table_names(model: Task) -> list[str]:
    """Returns the names of all tables."""
    names = [table.name for table in model.pooled_tables.embedding_bag_configs()]
    if model.step_tables is not None:
        names += [table.name for table in model.step_tables.embedding_configs()]
    return names


class Reader:
    """Makes batches of a Parquet part.

    Args:
        task: of the run.
        shape: the columns.
        labels: those that are learned.
    """

    def __init__(self, task: Job, shape: Shape, labels: tuple[str, ...]) -> None:
        self._task, self._shape, self._labels = task, shape, labels
        self._steps = shape.steps if task.model == "din" else {}
        self._shared = list(self._steps.values())
        self._ids = [name for name in shape.ids if name not in self._shared]

    def batches(self, part: str) -> Iterator[Batch]:
        """Yields the rows of ``train`` or ``test``."""
        columns = [*self._labels, *self._shape.floats, *self._shape.ids, *self._steps]
        file = pq.ParquetFile(self._task.data / f"{part}.parquet")
        for rows in file.iter_batches(self._task.batch_size, columns=columns):
            yield self._batch(rows)

    def _batch(self, rows: pa.RecordBatch) -> Batch:
        return Batch(
            _matrix(rows, self._shape.floats),
            self._jagged(rows, self._ids, {}),
            self._jagged(rows, self._shared, self._steps),
            _matrix(rows, self._labels),
        )

    def _jagged(
        self, rows: pa.RecordBatch, ids: list[str], steps: dict[str, str]
    ) -> KeyedJaggedTensor:
        """Returns columns of one id a row, and of a list a row."""
        lists = [rows.column(name) for name in steps]
        values = [rows.column(name).to_numpy() for name in ids]
        values += [column.flatten().to_numpy() for column in lists]
        lengths = [np.ones(len(ids) * rows.num_rows, np.int32)]
        lengths += [np.diff(column.offsets.to_numpy()) for column in lists]
        return KeyedJaggedTensor(
            keys=[*ids, *steps],
            values=torch.from_numpy(np.concatenate([*values, np.empty(0, np.int64)])),
            lengths=torch.from_numpy(np.concatenate(lengths)),
        )


def _matrix(rows: pa.RecordBatch, names: tuple[str, ...]) -> torch.Tensor:
    """Returns (rows, columns) numbers."""
    found = np.empty((rows.num_rows, len(names)), np.float32)
    for i, name in enumerate(names):
        found[:, i] = rows.column(name).to_numpy()
    return torch.from_numpy(found)


def read_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yields the batches, which a thread reads ahead."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(READ_AHEAD)

    def read() -> None:
        try:
            for batch in batches:
                ready.put(batch)
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=read, daemon=True).start()
    while (batch := ready.get()) is not None:
        if isinstance(batch, BaseException):
            raise batch
        yield batch


def predict(model: torch.nn.Module, batches: Iterator[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels and logits (rows, labels) of a part."""
    model.eval()
    truth, found = [], []
    with torch.no_grad():
        for batch in batches:
            truth.append(batch.labels.numpy())
            found.append(model(batch)[1].numpy())
    return np.concatenate(truth), np.concatenate(found)


if __name__ == "__main__":
    main()
